"""InferenceEngine on vLLM 0.32, on GPU and on CPU: the half of the adapter that lives in the rollout process.

It talks to vLLM through running.py, and by it to worker.py, inside the engine's workers. vLLM is imported where it is used,
after the environment is set, so that importing this file stays cheap.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from rollout.engine import BASE_VERSION, EngineFailed, SwapKind, SwapReport
from rollout.vllm import parent_watch
from rollout.vllm.launch import launch, refuse_what_was_changed, set_environment
from rollout.vllm.requests import sampling_parameters, text_for_grader
from rollout.vllm.running import EngineDied, RunningVllm
from services.clock import Deadline
from services.config.run import RunConfig
from services.errors import DeadlineExceeded, InputError, WeightSyncError
from services.metrics import waiting
from services.models.template import end_token_ids
from services.threads import in_daemon_thread
from services.wire.codec import Array, encode
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory, VersionSpan
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import SamplingParams

T = TypeVar("T")

log = logging.getLogger("ratchet.rollout")

_FIRST_POLL_S = 0.002
_LAST_POLL_S = 0.05
"""The workers answer between two engine steps: asked often during a short transfer, seldom during a long one."""
ANSWER_S = 30.0
"""How long after a deadline an engine may take to answer what it was asked. It answers after the step in progress, so one
that is silent for longer hangs."""


class VllmEngine:
    """One vLLM engine. See InferenceEngine for the contract.

    Its own metrics (vllm:*) are in prometheus_client's default registry.
    """

    def __init__(self, run: RunConfig, *, launch: Callable[[RunConfig], RunningVllm] = launch) -> None:
        """launch: starts the engine; called in a thread of its own."""
        self._run = run
        self._launch = launch
        self._vllm: RunningVllm | None = None
        self._end_token_ids: tuple[int, ...] = ()
        self._fault: str | None = None  # why the engine is dead
        self._policy_version = BASE_VERSION
        self._running_sequences = 0
        self._requests_total = 0
        self._swaps_total = 0
        self._changing_weights = asyncio.Lock()

    @property
    def policy_version(self) -> int:
        return self._policy_version

    @property
    def world_size(self) -> int:
        return self._run.rollout.tensor_parallel

    @property
    def running_sequences(self) -> int:
        return self._running_sequences

    async def start(self) -> None:
        set_environment(self._run)
        parent_watch.announce()
        try:
            self._vllm = await _beside_the_loop(partial(self._launch, self._run))
            refuse_what_was_changed(self._run, self._vllm.model_config)
            deadline = Deadline.after(self._run.deadlines.engine_start_s, "the engine to answer")
            await self._answered("set_version", self._alive().set_version(str(BASE_VERSION)), deadline)
        except InputError:
            await self.stop()
            raise
        except Exception as fault:
            await self.stop()
            raise EngineFailed(
                f"vLLM did not start with model.path = {self._run.model.path}: {fault}. The lines above, by the "
                "engine's own processes, say more"
            ) from fault
        model, tokenizer = self._alive().model_config, self._alive().tokenizer
        self._end_token_ids = end_token_ids(model.model, model.hf_text_config, tokenizer, model.get_vocab_size())

    async def stop(self, *, with_process: bool = False) -> None:
        vllm = self._vllm
        self._vllm = None
        if vllm is not None:
            await vllm.stop(with_process=with_process)

    async def sample(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        greedy = prompt.temperature == 0
        parameters = sampling_parameters(prompt, self._end_token_ids, greedy=greedy)
        prompt_ids = prompt.token_ids.numpy().tolist()
        self._running_sequences += prompt.group_size
        try:
            # Not the policy version: a learner that resumed gives the same numbers to other weights.
            salt = f"weights-{self._swaps_total}"
            output = await self._generate(prompt_ids, parameters, salt, prompt.group_id)
        finally:
            self._running_sequences -= prompt.group_size
        tokenizer = self._alive().tokenizer
        trajectories = tuple(self._trajectory(completion, prompt, tokenizer) for completion in output.outputs)
        return trajectories * prompt.group_size if greedy else trajectories

    async def probe(self, token_ids: Sequence[int], deadline: Deadline) -> list[float]:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        parameters = SamplingParams(
            max_tokens=1,
            prompt_logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        salt = f"probe-{self._requests_total}"  # shares no cached prefix with anything
        output = await self._answered("a probe", self._generate(list(token_ids), parameters, salt, "probe"), deadline)
        entries = cast(Any, output.prompt_logprobs)
        return [float(entries.logprobs[entries.start_indices[position]]) for position in range(1, len(token_ids))]

    async def join(self, rendezvous: Rendezvous, replica_id: str) -> None:
        if replica_id not in rendezvous.first_ranks:
            raise WeightSyncError(
                f"generation {rendezvous.pg_generation} was formed without {replica_id}; wait for the next"
            )
        async with self._changing_weights:
            deadline = Deadline.after(rendezvous.timeout_s + 5.0, f"generation {rendezvous.pg_generation} to form")
            first_rank, prepare = rendezvous.first_ranks[replica_id], self._run.rollout.prepare_weights
            await self._ask("join_generation", encode(rendezvous), first_rank, prepare, by=deadline)
            with waiting("rollout", "the process group"):
                await self._until_ready(deadline)

    async def stage_and_swap(
        self, manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None
    ) -> SwapReport:
        async with self._changing_weights:
            asked_s = time.perf_counter()
            place = encode(offer) if offer else None
            prepare, left_s = self._run.rollout.prepare_weights, deadline.remaining_s()
            refusals = await self._ask("stage_weights", encode(manifest), left_s, prepare, place, by=deadline)
            for rank, refusal in enumerate(refusals):
                if refusal is not None:
                    raise WeightSyncError(f"engine worker {rank}: {refusal}")
            with waiting("rollout", "a weight transfer"):
                await self._until_ready(deadline)
            transfer_s = time.perf_counter() - asked_s
            running_sequences = self._running_sequences
            # To its end even if the caller is cancelled: weights without their label would mislabel tokens.
            swapping = asyncio.ensure_future(self._swap(manifest.policy_version, deadline))
            try:
                kind, pause_s = await asyncio.shield(swapping)
            except asyncio.CancelledError:
                await asyncio.wait({swapping})
                raise
        return SwapReport(manifest.policy_version, transfer_s, pause_s, running_sequences, kind)

    async def _swap(self, policy_version: int, deadline: Deadline) -> tuple[SwapKind, float]:
        """Swap while sampling is paused; returns how, and the pause in seconds: from the end of the step in progress until the
        engine goes on. No step runs between swap and label: spans are exact.

        Raises EngineFailed, or InputError if there is no memory for the swap; what the engine holds is unknown then.
        """
        vllm = self._alive()
        recompute = self._run.rollout.kv_after_swap == "recompute"
        kind: SwapKind = "exchange"
        try:
            await self._answered("pause", vllm.pause(clear_cache=recompute), deadline)
            paused_s = time.perf_counter()
            for rank, (how, said) in enumerate(await self._ask("swap_weights", policy_version, by=deadline)):
                if how == "refused":
                    raise InputError(f"engine worker {rank}: {said}")
                if how == "reload":
                    kind = "reload"
                if said:
                    log.warning("engine worker %d: weights are reloaded in a pause, not exchanged: %s", rank, said)
            await self._answered("set_version", vllm.set_version(str(policy_version)), deadline)
            self._policy_version = policy_version
            self._swaps_total += 1
            await self._answered("resume", vllm.resume(), deadline)
        except Exception as fault:
            what = f"swapping in version {policy_version} failed, what the engine holds is unknown: {fault}"
            self._give_up(what)  # it stays paused, so no group may wait for it
            if isinstance(fault, InputError):
                raise
            raise EngineFailed(f"{what}. Start the replica again") from fault
        return kind, time.perf_counter() - paused_s

    async def _until_ready(self, deadline: Deadline) -> None:
        """Ask every worker until its join or transfer is done.

        Raises WeightSyncError with what the first worker that failed says, or if the deadline passes; InputError if a worker has
        no memory for what it is to receive.

        Waits for: the engine's workers.
        Until: `deadline`: rendezvous.timeout_s (deadlines.weight_join_s) + 5 s, or deadlines.weight_transfer_s.
        Ended by: every worker being ready, one worker's failure, or the death of the engine.
        Metric: ratchet_waiting{room="rollout", awaiting="the process group"} or awaiting="a weight transfer".
        """
        poll_s = _FIRST_POLL_S
        while True:
            workers = await self._ask("weights_progress", by=deadline)
            for rank, (state, fault) in enumerate(workers):
                if state == "out of memory":
                    raise InputError(f"engine worker {rank}: {fault}")
                if state == "failed":
                    raise WeightSyncError(f"engine worker {rank}: {fault}")
            if all(state == "ready" for state, _ in workers):
                return
            try:
                left_s = deadline.remaining_s()
            except DeadlineExceeded as late:
                raise WeightSyncError(f"{late} Until then the engine samples under the weights it has") from late
            await asyncio.sleep(min(poll_s, left_s))
            poll_s = min(poll_s * 1.5, _LAST_POLL_S)

    async def _ask(self, method: str, *arguments: Any, by: Deadline) -> list[Any]:
        """What each worker answers. Raises EngineFailed if the engine is dead, or does not answer in time."""
        try:
            return await self._answered(method, self._alive().ask_workers(method, *arguments), by)
        except EngineDied as fault:
            raise self._dead(fault) from fault
        except EngineFailed:
            raise
        except Exception as fault:  # vLLM raises it without a class of its own
            raise EngineFailed(f"{method} failed in the engine: {fault}") from fault

    async def _answered(self, what: str, call: Awaitable[T], deadline: Deadline) -> T:
        """The engine's answer to a call. Raises EngineFailed if it does not come: nobody knows then what the engine is doing.

        Waits for: the engine, to end the step in progress and do what it is asked.
        Until: ANSWER_S, 30 seconds, after the caller's deadline (deadlines.engine_start_s, deadlines.weight_join_s + 5 s or
            deadlines.weight_transfer_s).
        Ended by: the answer, the death of the engine, or that time (EngineFailed).
        Metric: ratchet_waiting{room="rollout", awaiting="the process group"} or awaiting="a weight transfer".
        """
        try:
            left_s = deadline.remaining_s()
        except DeadlineExceeded:
            left_s = 0.0
        try:
            async with asyncio.timeout(left_s + ANSWER_S) as patience:
                return await call
        except TimeoutError as fault:
            if not patience.expired():
                raise
            self._give_up(f"the engine hangs: {what} was not answered within {left_s + ANSWER_S:.0f} s")
            raise EngineFailed(f"{self._fault}. Start the replica again") from fault

    def _give_up(self, fault: str) -> None:
        """Take the engine for dead, and say so to every group in flight."""
        self._fault = fault
        if self._vllm is not None:
            self._vllm.fail_requests()

    async def _generate(
        self, prompt_ids: list[int], parameters: "SamplingParams", salt: str, name: str
    ) -> "RequestOutput":
        """One request to the engine, to its end.

        salt: only requests with the same salt share cached prefixes, so that none uses those of older weights. Raises
        InputError if the engine refuses the request, EngineFailed if the engine is dead.

        Waits for: the engine.
        Until: it is cancelled; a prompt's max_tokens bounds the work.
        Ended by: the finished output, a refusal, or the death of the engine.
        Metric: ratchet_rollout_running_sequences.
        """
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input

        vllm = self._alive()
        self._requests_total += 1
        request_id = f"{name}/{self._requests_total}"  # a group may come twice, after its first worker was lost
        tokens = tokens_input(prompt_ids, cache_salt=salt)
        try:
            return await vllm.generate(tokens, parameters, request_id)
        except (VLLMClientError, ValueError) as fault:
            raise InputError(f"{name} ({len(prompt_ids)} prompt tokens) was refused by the engine: {fault}") from fault
        except EngineDied as fault:
            raise self._dead(fault) from fault

    def _trajectory(self, completion: "CompletionOutput", prompt: Prompt, tokenizer: Any) -> Trajectory:
        token_ids = completion.token_ids
        if completion.finish_reason not in ("stop", "length"):
            raise EngineFailed(f"a sequence ended as {completion.finish_reason}; the engine is shutting down")
        return Trajectory(
            token_ids=Array.of(token_ids, "<i4"),
            behavior_logp=Array.of(cast(Any, completion.logprobs).logprobs, "<f4"),
            spans=tuple(
                VersionSpan(int(span.version), span.start, span.end)
                for span in completion.weight_versions or ()
                if span.end > span.start
            ),
            finish_reason=cast(Literal["stop", "length"], completion.finish_reason),
            text=text_for_grader(completion, prompt, tokenizer, self._end_token_ids),
        )

    def _alive(self) -> RunningVllm:
        if self._fault is not None:
            raise EngineFailed(f"{self._fault}. Start the replica again")
        if self._vllm is None:
            raise EngineFailed("the engine is not running; start it first")
        if self._vllm.fault is not None:
            raise self._dead(self._vllm.fault)
        return self._vllm

    def _dead(self, fault: object) -> EngineFailed:
        self._fault = self._fault or f"the vLLM engine of this replica died: {fault}"
        return EngineFailed(f"{self._fault}. Start the replica again; the lines above say more")


async def _beside_the_loop(work: Callable[[], T]) -> T:
    """Run `work` in a thread that does not hold the process when it hangs, as one of asyncio.to_thread would.

    Waits for: the thread.
    Until: it is cancelled; the replica does so after deadlines.engine_start_s.
    Ended by: the result of `work`, or what it raises.
    Metric: none; /metrics is served once the engine has started.
    """
    return await asyncio.wrap_future(in_daemon_thread(work, "engine-start"))
