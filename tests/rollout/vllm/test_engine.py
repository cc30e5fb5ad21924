"""The real engine on the CPU in float32, fed by a real broadcast; transformers is the judge.

Three engines, started once each: tied embeddings with kv_after_swap = "keep", in a process of its own and in this one, and untied
ones with "recompute".
"""

import asyncio
import json
import multiprocessing
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY
from transformers import Qwen2ForCausalLM

from learner.batch import packing
from learner.batch.step_batch import assemble
from learner.engine.policy_model import PolicyModel, inputs
from rollout.conversation.conversations import Conversations, HeldGroup, InEngine
from rollout.conversation.dialogue import Script
from rollout.engine import BASE_VERSION, EngineFailed, SwapReport
from rollout.environments import Message, Start, Subject
from rollout.environments import Turn as Answer
from rollout.environments.loading import environment_maker
from rollout.vllm.engine import VllmEngine
from rollout.vllm.launch import NORM_ON_CPU, refuse_what_was_changed
from services.clock import Deadline
from services.config.learner import LearnerConfig
from services.config.run import RunConfig
from services.errors import InputError, WeightSyncError
from services.weights.buckets import pack
from services.weights.meeting import RendezvousStore
from services.weights.process_group import ProcessGroupChannel
from services.wire.codec import Array
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from services.wire.trajectory import Group, Trajectory, check_turns
from services.wire.verdict import Score
from services.wire.weights import Gap, Rendezvous, WeightManifest
from tests.learner.talks import contexts, logp_of_the_whole
from tests.rollout.small_model import (
    CHARACTERS,
    STOP,
    logp_across_swap,
    logp_under,
    random_model,
    tokenizer_that_calls,
    write_model,
)

T = TypeVar("T")
TOLERANCE_NATS = 1e-4
REPLICA = "rollout-0"
LONG = 400  # response tokens: about a second, ten times what a swap takes


def soon(seconds: float = 60.0) -> Deadline:
    return Deadline.after(seconds, "the test")


class Sender:
    """Learner rank 0."""

    def __init__(self) -> None:
        self._store = RendezvousStore("127.0.0.1")
        self._channel = ProcessGroupChannel(self._store)
        self._generation = 0

    def next_rendezvous(self, timeout_s: float = 30.0) -> Rendezvous:
        self._generation += 1
        return Rendezvous(
            pg_generation=self._generation,
            backend="gloo",
            host="127.0.0.1",
            port=self._store.port,
            size=2,
            first_ranks={REPLICA: 1},
            timeout_s=timeout_s,
        )

    async def meet(self, engine: VllmEngine) -> None:
        rendezvous = self.next_rendezvous()
        await asyncio.gather(
            asyncio.to_thread(self._channel.form, rendezvous, soon()), engine.join(rendezvous, REPLICA)
        )

    def announce(self, model: Qwen2ForCausalLM, version: int) -> tuple[WeightManifest, list[torch.Tensor]]:
        packed = pack(list(model.named_parameters()), bucket_mib=1)
        assert len(packed) > 2
        manifest = WeightManifest(
            policy_version=version,
            pg_generation=self._generation,
            buckets=tuple(bucket for bucket, _ in packed),
            probes=(),
            bound=Gap(1e-3, 1e-3, 1e-3),
        )
        return manifest, [flat for _, flat in packed]

    async def send(self, manifest: WeightManifest, flat_buckets: Sequence[torch.Tensor]) -> None:
        await asyncio.to_thread(self._channel.send, manifest, flat_buckets, soon())

    def close(self) -> None:
        self._channel.close()


class Rig:
    """One engine, the loop it lives in, and who sends it weights."""

    def __init__(
        self,
        folder: Path,
        *,
        tied: bool,
        kv_after_swap: str,
        engine_process: str = "own",
        talks: bool = False,
        kv_cache_gib: float = 0.25,
    ) -> None:
        """talks: whether it is the engine of a run with an environment."""
        self.tied = tied
        self.shared = engine_process == "shared"
        self.kv_after_swap = kv_after_swap
        self.sender = Sender()
        self.run_config = RunConfig.model_validate(
            {
                "name": "engine-test",
                "device": "cpu",
                "model": {"path": str(folder), "max_length": 512, "dtype": "float32"},
                "prompts": {"source": {"type": "jsonl", "path": "unused.jsonl"}},
                "rollout": {
                    "sampling": {"max_tokens": LONG},
                    "max_concurrent_sequences": 64,
                    "kv_cache_gib": kv_cache_gib,
                    "kv_after_swap": kv_after_swap,
                    "engine_process": engine_process,
                },
                "learner": {"steps": 1, "groups_per_step": 1},
                "weights": {"type": "gloo"},
                **({"environment": {"name": "guess"}} if talks else {}),
            }
        )
        self.engine = VllmEngine(self.run_config)
        self.version = 0
        self.model = random_model(0, tied=tied)
        self._runner = asyncio.Runner()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asyncio.wait_for(work, 120))

    def close(self) -> None:
        self.do(self.engine.stop())
        self._runner.close()
        self.sender.close()

    async def publish(self) -> SwapReport:
        """Random weights that no version had before."""
        self.version += 1
        return await self.publish_as(self.version, random_model(self.version, tied=self.tied))

    async def publish_as(self, version: int, model: Qwen2ForCausalLM) -> SwapReport:
        manifest, flat_buckets = self.sender.announce(model, version)
        report, _ = await asyncio.gather(
            self.engine.stage_and_swap(manifest, soon()), self.sender.send(manifest, flat_buckets)
        )
        self.model = model
        return report


@pytest.fixture(scope="module", params=["tied-keep-own", "tied-keep-shared", "untied-recompute-shared-talks"])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    embeddings, kv_after_swap, engine_process, *talks = request.param.split("-")
    folder = tmp_path_factory.mktemp(embeddings)
    write_model(folder, tied=embeddings == "tied")
    started = Rig(
        folder,
        tied=embeddings == "tied",
        kv_after_swap=kv_after_swap,
        engine_process=engine_process,
        talks=bool(talks),
    )
    started.do(started.engine.start())
    started.do(started.sender.meet(started.engine))
    yield started
    started.close()


def prompt(length: int = 6, *, tokens: int = 8, size: int = 4, temperature: float = 1.0, **more: Any) -> Prompt:
    fields: dict[str, Any] = {
        "group_id": "train-0",
        "sequence_number": 0,
        "purpose": "train",
        "row": 0,
        "token_ids": Array.of([1 + (7 * position) % 17 for position in range(length)], "<i4"),
        "group_size": size,
        "temperature": temperature,
        "max_tokens": tokens,
        "stop_token_ids": (),
        "seed": 11,
        "grader": "exact",
        "reference": "",
        "options": {},
    }
    return Prompt(**(fields | more))


def ids(record: Prompt | Trajectory) -> list[int]:
    return [int(token) for token in record.token_ids.numpy()]


def gap_nats(trajectory: Trajectory, expected: torch.Tensor) -> float:
    return float(np.abs(trajectory.behavior_logp.numpy() - expected.numpy()).max())


def versions(trajectory: Trajectory) -> set[int]:
    return set(trajectory.policy_versions().tolist())


def test_before_the_first_swap_the_version_is_unknown(rig: Rig) -> None:
    assert rig.engine.policy_version == BASE_VERSION
    trajectories = rig.do(rig.engine.sample(prompt()))
    assert [versions(trajectory) for trajectory in trajectories] == [{BASE_VERSION}] * 4


def test_an_exchange_gives_the_log_probs_of_a_reload_to_the_last_bit(rig: Rig) -> None:
    sequence = [1 + (5 * position) % 17 for position in range(100)]
    probes, kinds = [], []
    for seed in (1, 2, 1, 2, 1):
        rig.version += 1
        report = rig.do(rig.publish_as(rig.version, random_model(seed, tied=rig.tied)))
        kinds.append(report.kind)
        probes.append(rig.do(rig.engine.probe(sequence, soon())))
    assert kinds == ["reload"] + ["exchange"] * 4  # the first proves that both come out the same
    assert probes[0] == probes[2] == probes[4]
    assert probes[1] == probes[3] != probes[0]


def test_after_a_swap_logp_is_that_of_the_new_weights(rig: Rig) -> None:
    for _ in range(2):  # the second is received into the buffers of the first
        report = rig.do(rig.publish())
        assert (report.policy_version, rig.engine.policy_version) == (rig.version, rig.version)
        for temperature in (1.0, 0.7):
            asked = prompt(tokens=30, temperature=temperature)
            for trajectory in rig.do(rig.engine.sample(asked)):
                assert versions(trajectory) == {rig.version}
                expected = logp_under(rig.model, ids(asked), ids(trajectory), temperature)
                assert gap_nats(trajectory, expected) < TOLERANCE_NATS


def test_a_probe_is_of_the_weights_held_now_and_not_of_a_cache(rig: Rig) -> None:
    sequence = [1 + (5 * position) % 17 for position in range(300)]  # more than two cache blocks
    for _ in range(2):
        rig.do(rig.publish())
        for _ in range(2):
            probed = rig.do(rig.engine.probe(sequence, soon()))
            expected = logp_under(rig.model, sequence[:1], sequence[1:])
            assert len(probed) == 299
            assert np.abs(np.array(probed) - expected.numpy()).max() < TOLERANCE_NATS


def test_a_prompt_seen_before_the_swap_is_read_again_under_the_new_weights(rig: Rig) -> None:
    asked = prompt(300)
    rig.do(rig.engine.sample(asked))  # its blocks are in the prefix cache now
    rig.do(rig.publish())
    for trajectory in rig.do(rig.engine.sample(asked)):
        assert gap_nats(trajectory, logp_under(rig.model, ids(asked), ids(trajectory))) < TOLERANCE_NATS


def test_a_version_that_comes_again_with_other_weights_finds_nothing_cached_of_the_first(rig: Rig) -> None:
    """A learner that resumed from an earlier checkpoint takes its last steps again."""
    rig.do(rig.publish())
    asked = prompt(300)
    rig.do(rig.engine.sample(asked))
    rig.do(rig.publish_as(rig.version, random_model(98, tied=rig.tied)))
    for trajectory in rig.do(rig.engine.sample(asked)):
        assert versions(trajectory) == {rig.version}
        assert gap_nats(trajectory, logp_under(rig.model, ids(asked), ids(trajectory))) < TOLERANCE_NATS


def test_every_span_in_mid_flight_has_the_logp_of_what_sampled_it(rig: Rig) -> None:
    asked = prompt(tokens=LONG)

    async def swap_in_mid_flight() -> tuple[tuple[Trajectory, ...], SwapReport]:
        sampling = asyncio.create_task(rig.engine.sample(asked))
        await asyncio.sleep(0.3)
        report = await rig.publish()
        return await sampling, report

    rig.do(rig.publish())
    before = rig.model
    trajectories, report = rig.do(swap_in_mid_flight())
    assert (report.running_sequences, report.kind) == (4, "exchange")
    assert rig.engine.running_sequences == 0
    for trajectory in trajectories:
        first, second = trajectory.spans
        assert (first.policy_version, second.policy_version) == (rig.version - 1, rig.version)
        assert (first.start, first.end, second.end) == (0, second.start, LONG)
        response = ids(trajectory)
        if rig.kv_after_swap == "keep":
            expected = logp_across_swap(before, rig.model, ids(asked), response, first.end)
            afresh = logp_under(rig.model, ids(asked), response)[first.end :]
            assert float((expected[first.end :] - afresh).abs().max()) > 0.01  # the kept cache does matter
        else:
            old = logp_under(before, ids(asked), response[: first.end])
            new = logp_under(rig.model, ids(asked), response)[first.end :]
            expected = torch.cat([old, new])
        assert gap_nats(trajectory, expected) < TOLERANCE_NATS


def test_samples_that_had_to_wait_while_weights_changed_are_of_the_new_ones_alone(rig: Rig) -> None:
    """There is room for 64: most of the groups, all of one prompt, wait while the first of them samples."""
    groups = [prompt(tokens=120, size=40, seed=1000 * number) for number in range(4)]

    async def swap_meanwhile() -> list[tuple[Trajectory, ...]]:
        sampling = [asyncio.create_task(rig.engine.sample(group)) for group in groups]
        await asyncio.sleep(0.2)
        await rig.publish()
        return list(await asyncio.gather(*sampling))

    rig.do(rig.publish())
    sampled = rig.do(swap_meanwhile())
    late = [one for group in sampled for one in group if versions(one) == {rig.version}]
    assert late
    for trajectory in late:
        expected = logp_under(rig.model, ids(groups[0]), ids(trajectory))
        assert gap_nats(trajectory, expected) < TOLERANCE_NATS


def test_the_samples_of_a_group_read_their_prompt_once_where_the_engine_is_in_this_process(rig: Rig) -> None:
    def shared_tokens() -> float:
        samples = [sample for family in REGISTRY.collect() for sample in family.samples]
        return sum(one.value for one in samples if one.name == "vllm:external_prefix_cache_hits_total")

    for length, shared_by_each in ((6, 5), (2, 1), (1, 0), (33, 0), (40, 7)):
        before = shared_tokens()
        asked = prompt(length, tokens=3, size=4, seed=length)
        together = rig.do(rig.engine.sample(asked))
        assert shared_tokens() - before == 3 * shared_by_each * rig.shared
        for trajectory in together:
            expected = logp_under(rig.model, ids(asked), ids(trajectory))
            assert gap_nats(trajectory, expected) < TOLERANCE_NATS


def test_a_prompt_whose_reader_was_cancelled_is_read_by_another(rig: Rig) -> None:
    first, second = prompt(tokens=LONG, seed=1), prompt(tokens=40, seed=100)

    async def cancel_the_first() -> tuple[Trajectory, ...]:
        reading = asyncio.create_task(rig.engine.sample(first))
        sampling = asyncio.create_task(rig.engine.sample(second))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return await sampling

    for trajectory in rig.do(cancel_the_first()):
        assert gap_nats(trajectory, logp_under(rig.model, ids(second), ids(trajectory))) < TOLERANCE_NATS


def test_a_sender_that_dies_in_the_middle_changes_nothing(rig: Rig) -> None:
    async def half_a_transfer() -> tuple[Trajectory, ...]:
        sampling = asyncio.create_task(rig.engine.sample(prompt(tokens=LONG)))
        manifest, flat_buckets = rig.sender.announce(random_model(99, tied=rig.tied), 99)
        receiving = asyncio.create_task(rig.engine.stage_and_swap(manifest, soon()))
        await rig.sender.send(manifest, flat_buckets[:2])
        rig.sender.close()
        with pytest.raises(WeightSyncError, match=r"engine worker 0: generation .* next generation"):
            await receiving
        return await sampling

    rig.do(rig.publish())
    for trajectory in rig.do(half_a_transfer()):
        assert versions(trajectory) == {rig.version}
        expected = logp_under(rig.model, ids(prompt()), ids(trajectory))
        assert gap_nats(trajectory, expected) < TOLERANCE_NATS
    rig.do(rig.sender.meet(rig.engine))
    test_after_a_swap_logp_is_that_of_the_new_weights(rig)


def test_bytes_that_are_not_those_announced_are_refused(rig: Rig) -> None:
    async def damaged_transfer() -> None:
        manifest, flat_buckets = rig.sender.announce(random_model(99, tied=rig.tied), 99)
        flat_buckets[1][1000] ^= 1
        receiving = asyncio.create_task(rig.engine.stage_and_swap(manifest, soon()))
        await rig.sender.send(manifest, flat_buckets)
        with pytest.raises(WeightSyncError, match=f"bucket 2 of .* announced was {manifest.buckets[1].digest}"):
            await receiving

    rig.do(rig.publish())
    rig.do(damaged_transfer())
    assert rig.engine.policy_version == rig.version
    [trajectory] = rig.do(rig.engine.sample(prompt(size=1)))
    assert gap_nats(trajectory, logp_under(rig.model, ids(prompt()), ids(trajectory))) < TOLERANCE_NATS
    rig.do(rig.sender.meet(rig.engine))
    test_after_a_swap_logp_is_that_of_the_new_weights(rig)


def test_a_generation_that_does_not_form_leaves_the_next_one_open(rig: Rig) -> None:
    with pytest.raises(WeightSyncError, match="not all 2 members met"):
        rig.do(rig.engine.join(rig.sender.next_rendezvous(timeout_s=1.0), REPLICA))
    with pytest.raises(WeightSyncError, match="formed without rollout-7; wait for the next"):
        rig.do(rig.engine.join(rig.sender.next_rendezvous(), "rollout-7"))
    manifest, _ = rig.sender.announce(rig.model, 99)
    with pytest.raises(WeightSyncError, match="join first"):
        rig.do(rig.engine.stage_and_swap(manifest, soon()))
    rig.do(rig.sender.meet(rig.engine))
    rig.do(rig.publish())


def test_temperature_zero_takes_the_likeliest_token(rig: Rig) -> None:
    asked = prompt(tokens=12, size=2, temperature=0.0)
    one, other = rig.do(rig.engine.sample(asked))
    assert ids(one) == ids(other)
    sequence = torch.tensor([ids(asked) + ids(one)])
    with torch.no_grad():
        likeliest = rig.model(sequence).logits[0, len(ids(asked)) - 1 : -1].argmax(-1)
    assert likeliest.tolist() == ids(one)


def test_trajectory_i_is_sampled_with_seed_plus_i(rig: Rig) -> None:
    group = rig.do(rig.engine.sample(prompt(seed=500, size=3)))
    shifted = rig.do(rig.engine.sample(prompt(seed=501, size=3)))
    assert [ids(trajectory) for trajectory in group[1:]] == [ids(trajectory) for trajectory in shifted[:2]]
    assert len({tuple(ids(trajectory)) for trajectory in group}) == 3


def test_a_stop_token_ends_a_response_and_belongs_to_it(rig: Rig) -> None:
    trajectories = rig.do(rig.engine.sample(prompt(tokens=40, size=16, stop_token_ids=(STOP,))))
    reasons = {trajectory.finish_reason for trajectory in trajectories}
    assert "stop" in reasons
    for trajectory in trajectories:
        assert (ids(trajectory)[-1] == STOP) == (trajectory.finish_reason == "stop")
        assert STOP not in ids(trajectory)[:-1]
        assert len(trajectory.text) == len(trajectory) - ids(trajectory).count(0)  # "~" is special, and left out


def test_a_stop_text_ends_a_response_stays_in_it_and_has_its_log_probs(rig: Rig) -> None:
    asked = prompt(tokens=60, size=16, stop=("1=", "a"))
    trajectories = rig.do(rig.engine.sample(asked))
    stopped = [trajectory for trajectory in trajectories if trajectory.finish_reason == "stop"]
    assert stopped
    for trajectory in stopped:
        assert trajectory.text.endswith(("1=", "a"))
        assert not any(text in trajectory.text[:-1] for text in asked.stop)
        assert len(trajectory.behavior_logp.numpy()) == len(trajectory) == len(trajectory.policy_versions())
        assert gap_nats(trajectory, logp_under(rig.model, ids(asked), ids(trajectory))) < TOLERANCE_NATS


def test_special_tokens_are_kept_for_the_grader_when_asked_but_not_the_one_at_the_end(rig: Rig) -> None:
    asked = prompt(tokens=40, size=16, stop_token_ids=(STOP,), keep_special_tokens=True)
    trajectories = rig.do(rig.engine.sample(asked))
    assert any(0 in ids(trajectory) for trajectory in trajectories)
    for trajectory in trajectories:
        assert trajectory.text.count("~") == ids(trajectory).count(0)
        assert len(trajectory.text) == len(trajectory) - (trajectory.finish_reason == "stop")


def test_a_temperature_that_the_engine_does_not_take_is_a_refusal_of_the_prompt(rig: Rig) -> None:
    with pytest.raises(InputError, match=r"refuses what train-0 asks for: temperature must be in \[0, 2\], got 2\.5"):
        rig.do(rig.engine.sample(prompt(temperature=2.5)))
    assert len(rig.do(rig.engine.sample(prompt()))) == 4


def test_an_architecture_that_vllm_does_not_know_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    write_model(tmp_path, tied=True)
    settings = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(
        json.dumps(settings | {"architectures": ["NobodyForCausalLM"]}), encoding="utf-8"
    )
    run = RunConfig.model_validate(
        {
            "name": "engine-test",
            "device": "cpu",
            "model": {"path": str(tmp_path), "max_length": 512, "dtype": "float32"},
            "prompts": {"source": {"type": "jsonl", "path": "unused.jsonl"}},
            "rollout": {"sampling": {"max_tokens": 8}},
            "learner": {"steps": 1, "groups_per_step": 1},
            "weights": {"type": "gloo"},
        }
    )
    with pytest.raises(InputError, match=r"vLLM cannot serve model\.path = .*NobodyForCausalLM"):
        asyncio.run(VllmEngine(run).start())


def test_a_prompt_that_does_not_fit_is_refused_and_the_engine_goes_on(rig: Rig) -> None:
    with pytest.raises(InputError, match=r"train-0 \(600 prompt tokens\) was refused"):
        rig.do(rig.engine.sample(prompt(600)))
    assert len(rig.do(rig.engine.sample(prompt()))) == 4


def test_a_cancelled_group_leaves_the_engine(rig: Rig) -> None:
    async def cancel() -> None:
        sampling = asyncio.create_task(rig.engine.sample(prompt(tokens=LONG)))
        await asyncio.sleep(0.1)
        sampling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sampling

    rig.do(cancel())
    assert rig.engine.running_sequences == 0
    assert len(rig.do(rig.engine.sample(prompt()))) == 4


def test_the_metrics_of_the_engine_are_exported_with_ours(rig: Rig) -> None:
    families = {family.name: family for family in REGISTRY.collect()}
    assert {"vllm:num_requests_running", "vllm:generation_tokens"} <= families.keys()
    rig.do(rig.engine.sample(prompt()))
    token_times = {sample.name: sample.value for sample in families["vllm:inter_token_latency_seconds"].samples}
    rig.do(rig.engine.sample(prompt()))
    after = {sample.name: sample.value for family in REGISTRY.collect() for sample in family.samples}
    assert after["vllm:inter_token_latency_seconds_count"] > token_times["vllm:inter_token_latency_seconds_count"]


def test_an_engine_in_this_process_normalizes_with_the_kernel_for_cpus(rig: Rig) -> None:
    from vllm import ir

    if rig.shared:
        assert ir.ops.rms_norm.get_priority() == [NORM_ON_CPU, "native"]
        assert ir.ops.fused_add_rms_norm.get_priority() == [NORM_ON_CPU, "native"]


def test_other_threads_go_on_while_the_engine_steps_joins_and_swaps(rig: Rig) -> None:
    """The lease and /healthz are served by them, also where the engine shares the process."""

    async def busy() -> None:
        sampling = asyncio.create_task(rig.engine.sample(prompt(300, tokens=LONG // 2, size=32)))
        await rig.sender.meet(rig.engine)
        await rig.publish()
        await sampling

    longest_s, ended = 0.0, threading.Event()

    def tick() -> None:
        nonlocal longest_s
        while not ended.is_set():
            begun_s = time.monotonic()
            time.sleep(0.002)
            longest_s = max(longest_s, time.monotonic() - begun_s)

    ticking = threading.Thread(target=tick)
    ticking.start()
    rig.do(busy())
    ended.set()
    ticking.join()
    assert longest_s < 1.0  # a third of the shortest lease


def test_a_version_that_lacks_a_weight_is_reloaded_and_keeps_that_of_the_version_before(rig: Rig) -> None:
    """Which exchanges end with: what was prepared holds that of another version."""
    left_out = "model.layers.1.input_layernorm.weight"

    async def publish_part(model: Qwen2ForCausalLM) -> SwapReport:
        rig.version += 1
        packed = pack([pair for pair in model.named_parameters() if pair[0] != left_out], bucket_mib=1)
        manifest, _ = rig.sender.announce(model, rig.version)
        manifest = msgspec.structs.replace(manifest, buckets=tuple(bucket for bucket, _ in packed))
        report, _ = await asyncio.gather(
            rig.engine.stage_and_swap(manifest, soon()), rig.sender.send(manifest, [flat for _, flat in packed])
        )
        return report

    assert [rig.do(rig.publish()).kind for _ in range(2)] == ["exchange"] * 2
    expected = random_model(70, tied=rig.tied)
    with torch.no_grad():
        expected.get_parameter(left_out).copy_(rig.model.get_parameter(left_out))
    assert rig.do(publish_part(random_model(70, tied=rig.tied))).kind == "reload"
    [trajectory] = rig.do(rig.engine.sample(prompt(size=1)))
    assert gap_nats(trajectory, logp_under(expected, ids(prompt()), ids(trajectory))) < TOLERANCE_NATS
    assert rig.do(rig.publish()).kind == "reload"


class ThreeTurns:
    """Answers two messages with a few characters and ends with the third."""

    def __init__(self) -> None:
        self._heard = 0

    async def reset(self, subject: Subject) -> Start:
        return Start([{"role": "user", "content": "12+34-"}])

    async def step(self, message: Message) -> Answer:
        self._heard += 1
        return Answer([{"role": "user", "content": "5*6="}], done=self._heard == 3, reward=1.0)

    async def close(self) -> None:
        pass


async def held(talks: Conversations, asked: Prompt, in_engine: InEngine) -> HeldGroup:
    """The conversations of one group, to their ends."""
    group = await talks.sample(asked, in_engine)
    await talks.stop()
    return group


def test_log_probs_of_a_conversation_are_those_of_a_forward_of_all_of_it(rig: Rig) -> None:
    """With a swap between its turns: each turn's are those of the weights that sampled it, given everything before."""
    from transformers import AutoTokenizer

    settings = rig.run_config.model_dump(mode="json", exclude_none=True)
    settings |= {"environment": {"name": "guess", "max_turns": 3}}
    settings["prompts"]["template"] = "none"
    config = RunConfig.model_validate(settings)
    script = Script(AutoTokenizer.from_pretrained(config.model.path), [], config.prompts)
    rig.do(rig.publish())  # an engine before its first swap does not know its version
    models = {rig.version: rig.model}
    turns = 0

    async def in_engine(asked: Prompt) -> tuple[Trajectory, ...]:
        nonlocal turns
        turns += 1
        if turns == 6:  # of twelve: four conversations with three turns each
            await rig.publish()
            models[rig.version] = rig.model
        found = await rig.engine.sample(msgspec.structs.replace(asked, max_tokens=9))
        return tuple(msgspec.structs.replace(one, finish_reason="stop") for one in found)

    begun, trajectories = rig.do(
        held(Conversations(config, script, ThreeTurns), prompt(tokens=60, grader="environment", problem=""), in_engine)
    )
    assert len({version for one in trajectories for version in versions(one)}) == 2
    for one in trajectories:
        check_turns(one)
        assert [turn.tokens for turn in one.turns] == [9, 9, 9]
        ((whole, sampled),) = contexts(ids(begun), one)
        logp, version = one.behavior_logp.numpy(), one.policy_versions()
        for number in range(3):
            of_turn = slice(9 * number, 9 * number + 9)
            if len(set(version[of_turn])) > 1:
                continue  # a swap within a turn: what the cache keeps is another test's matter
            at = sampled[of_turn.start]
            expected = logp_under(models[int(version[of_turn.start])], whole[:at], whole[at : at + 9])
            assert float(np.abs(logp[of_turn] - expected.numpy()).max()) < TOLERANCE_NATS


TEMPLATES = {
    "marked": "{% for m in messages %}{{ 'a' if m.role == 'user' else 'b' }}{{ m.content }}={% endfor %}"
    "{% if add_generation_prompt %}b{% endif %}",
    "headers": "{% for m in messages %}cc{{ m.role | length }}-{{ m.content | trim }}={% endfor %}"
    "{% if add_generation_prompt %}cc9-{% endif %}",
    "forgets": "{% for m in messages %}{{ m.content[-2:] if m.role == 'assistant' else '*' + m.content }}={% endfor %}"
    "{% if add_generation_prompt %}d{% endif %}",
}
"""Chat templates of the small model's characters; the last keeps two of what was said, so that sequences begin again."""


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_the_engine_records_of_conversations_is_what_the_learner_computes_packed_and_alone(
    rig: Rig, template: str
) -> None:
    from transformers import AutoTokenizer

    settings = rig.run_config.model_dump(mode="json", exclude_none=True)
    settings |= {"environment": {"name": "guess", "max_turns": 3}}
    config = RunConfig.model_validate(settings)
    tokenizer = AutoTokenizer.from_pretrained(config.model.path)
    tokenizer.chat_template = TEMPLATES[template]
    script = Script(tokenizer, [STOP], config.prompts)

    async def in_engine(asked: Prompt) -> tuple[Trajectory, ...]:
        # The first message may end itself. The others make it long: the last turn finds a block of the cache again.
        ends = (STOP,) if len(asked.token_ids) < 40 else ()
        found = await rig.engine.sample(msgspec.structs.replace(asked, max_tokens=70, stop_token_ids=ends))
        return tuple(msgspec.structs.replace(one, finish_reason="stop") for one in found)

    begun, trajectories = rig.do(
        held(Conversations(config, script, ThreeTurns), prompt(tokens=250, grader="environment", problem=""), in_engine)
    )
    restarts = [turn.restarts for one in trajectories for turn in one.turns]
    assert any(restarts) is (template == "forgets")
    scores = [Score(verdict="correct", reward=float(i), detail="", elapsed_s=0.0) for i in range(len(trajectories))]
    group = Group(prompt=begun, trajectories=trajectories, replica_id=REPLICA)
    learner = LearnerConfig(steps=1, groups_per_step=1, row_tokens=1024)
    batch = assemble([ScoredGroup(group=group, scores=tuple(scores), verifier_id="v")], rig.version, learner)
    own = PolicyModel(config.model, head_chunk_tokens=64, gradient_checkpointing=False)
    with torch.no_grad():
        for name, weight in own.named_weights():
            weight.copy_(rig.model.get_parameter(name))
        for laid in (packing.pack(batch, row_tokens=1024, rows_per_micro_batch=2), packing.one_each(batch)):
            logp = torch.full_like(batch.behavior_logp, torch.nan)
            for micro_batch in laid:
                logp[micro_batch.token_index] = own(*inputs(micro_batch, torch.device("cpu")))[0]
            assert float((logp - batch.behavior_logp).abs().max()) < TOLERANCE_NATS
    for one in trajectories:
        expected = logp_of_the_whole(rig.model, ids(begun), one).detach()
        assert gap_nats(one, expected) < TOLERANCE_NATS


CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "12*7"}}</tool_call>'


def test_an_agent_and_its_tool_talk_with_the_real_engine(rig: Rig) -> None:
    """The model draws tokens at random, and one of them means a call: what is read and said is exact all the same."""
    pytest.importorskip("openai")
    settings = rig.run_config.model_dump(mode="json", exclude_none=True)
    agent = {"function": "tests.rollout.environments.agent.agents:calculating"}
    settings |= {"environment": {"name": "agent", "options": agent, "max_turns": 4, "max_turn_tokens": 40}}
    settings["prompts"]["template"] = "none"
    config = RunConfig.model_validate(settings)
    script = Script(tokenizer_that_calls(CALL), [STOP], config.prompts)
    asked = prompt(tokens=150, size=8, problem="12*7", stop_token_ids=(STOP,), grader="exact")

    begun, trajectories = rig.do(
        held(Conversations(config, script, environment_maker(config)), asked, rig.engine.sample)
    )
    answers = [ids_of_turn.numpy().tolist() for one in trajectories for ids_of_turn in (t.given for t in one.turns[1:])]
    assert answers, "no conversation called the tool"
    eighty_four = [CHARACTERS.index(digit) + 1 for digit in "84"]
    for given in answers:
        assert given == eighty_four * (len(given) // 2)  # as often as the message calls
    for one in trajectories:
        check_turns(one)
        assert not any(turn.restarts for turn in one.turns)
        expected = logp_of_the_whole(rig.model, ids(begun), one)
        assert float(np.abs(one.behavior_logp.numpy() - expected.detach().numpy()).max()) < TOLERANCE_NATS


def test_a_dead_engine_is_noticed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test of each engine: one is killed, one fails in a step, one gets the weights of another architecture."""

    async def die() -> None:
        sampling = asyncio.create_task(rig.engine.sample(prompt(tokens=LONG)))
        await asyncio.sleep(0.1)
        if not rig.shared:
            reason = "died"
            [process] = multiprocessing.active_children()
            process.kill()
        elif rig.tied:
            reason = "died: ZeroDivisionError: division by zero"
            monkeypatch.setattr("vllm.v1.worker.cpu_model_runner.CPUModelRunner.execute_model", lambda *_, **__: 1 / 0)
        else:
            reason = "swapping in version 99 failed"
            packed = pack([("model.layers.0.unheard_of.weight", torch.zeros(8, 8))], bucket_mib=1)
            manifest, _ = rig.sender.announce(rig.model, 99)
            manifest = msgspec.structs.replace(manifest, buckets=(packed[0][0],))
            receiving = asyncio.create_task(rig.engine.stage_and_swap(manifest, soon()))
            await rig.sender.send(manifest, [packed[0][1]])
            with pytest.raises(EngineFailed, match=reason):
                await receiving
        with pytest.raises(EngineFailed, match=f"{reason}.*Start the replica again"):
            await sampling
        with pytest.raises(EngineFailed, match=reason):
            await rig.engine.sample(prompt())
        with pytest.raises(EngineFailed, match=reason):
            await rig.engine.join(rig.sender.next_rendezvous(), REPLICA)

    rig.do(die())


def test_an_engine_that_was_not_started_says_so() -> None:
    engine = VllmEngine(RunConfig.model_construct())
    with pytest.raises(EngineFailed, match="start it first"):
        asyncio.run(engine.sample(prompt()))


def test_an_engine_for_another_device_says_what_to_install(tmp_path: Path) -> None:
    rig = Rig(tmp_path, tied=True, kv_after_swap="keep")
    elsewhere = VllmEngine(rig.run_config.model_copy(update={"device": "cuda"}))
    with pytest.raises(InputError, match='device = "cuda", but the vLLM installed here finds "cpu"'):
        asyncio.run(elsewhere.start())


@pytest.mark.parametrize(
    ("taken", "asked", "said"),
    [
        ({"max_model_len": 256}, {}, r"model\.max_length = 512, and the engine takes 256"),
        ({"dtype": torch.float16}, {}, r"model\.dtype = float32, and the engine takes float16"),
        ({}, {"temperature": 0.004}, r"rollout\.sampling\.temperature = 0\.004, and the engine takes 0\.01"),
        ({}, {"temperature": 2.5}, r"rollout\.sampling\.temperature = 2\.5 is refused by the engine"),
        ({}, {}, None),
    ],
)
def test_what_the_engine_takes_otherwise_than_it_was_given_is_refused(
    tmp_path: Path, taken: dict[str, Any], asked: dict[str, Any], said: str | None
) -> None:
    run = Rig(tmp_path, tied=True, kv_after_swap="keep").run_config
    sampling = run.rollout.sampling.model_copy(update=asked)
    run = run.model_copy(update={"rollout": run.rollout.model_copy(update={"sampling": sampling})})
    model = SimpleNamespace(**{"max_model_len": 512, "dtype": torch.float32} | taken)
    if said is None:
        refuse_what_was_changed(run, model)
        return
    with pytest.raises(InputError, match=said):
        refuse_what_was_changed(run, model)
