"""The learner as a process: `python -m learner RUN.toml`, one per rank under torchrun."""

import dataclasses
import logging
import os
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import msgspec
import torch

from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.evaluation import Evaluator, HeldOut
from learner.intake.collector import Collector, Sampled
from learner.intake.depths import StreamDepths
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.leftovers import Leftovers, lost_groups
from learner.kept_groups import KeptGroups
from learner.loop import Beginning, TrainingLoop
from learner.metrics import GPU_HOUR_PRICE, RANKS
from learner.objective import OBJECTIVES
from learner.publish.publisher import WeightPublisher
from learner.publish.snapshot import Snapshots, probe_tokens
from learner.publish.weight_server import WeightServer
from learner.ranks import Team
from learner.records import Records
from learner.surroundings import look_at_disk, look_at_redis
from learner.tracking.choice import open_trackers
from services.config import RunConfig
from services.config.load import load
from services.config.prompts import PromptsConfig
from services.datasets.overlap import overlap_warning
from services.datasets.rendering import RenderedProblems, Renderer
from services.entry import DONE, INTERRUPTED, StopSignal, begin, end, redis_connection, service_parser
from services.errors import InputError
from services.gpu_memory import export_gpu_memory
from services.health import HealthServer
from services.identity import name_nccl_host
from services.run import made_of
from services.run.addresses import announce_address
from services.run.checkpoint_files import visible_damage
from services.run.folder import RunFolder
from services.run.learner_lock import held_by_learner
from services.run.left_out import left_out
from services.run.settled import last_attempt
from services.run.summary import summarize, write
from services.streams.fence import Fence, FencedConnection, holder_now, identity_of
from services.streams.names import ALL, DEAD, EVALUATION_PROMPTS, PROMPTS, SCORED, TRAINING
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.weights.membership import Membership
from services.weights.process_group import ProcessGroupChannel, RendezvousStore, bucket_device, check_backend

log = logging.getLogger("ratchet.learner")

CONSUMER = "learner"
NEVER_RECLAIM_S = 1e8
"""There is one learner, and it holds its claims until a checkpoint contains them: no other consumer may take them."""


@dataclass(frozen=True)
class Prepared:
    """What rank 0 has before any model is loaded."""

    connection: RedisConnection
    fence: Fence
    fenced: FencedConnection
    streams: dict[str, RedisStream]
    """By name. Once another learner has taken over the run they refuse everything."""
    beginning: Beginning
    store: RendezvousStore
    server: WeightServer
    training: list[RenderedProblems]
    """The problems of each source, in the order of the run file."""
    held_out: list[RenderedProblems]
    """The same for evaluations; empty without any."""
    text_of: Callable[[Sequence[int]], str]
    """The text of some tokens; for one thread."""
    loaded: threading.Event
    health: HealthServer
    """Ready once `loaded` is set."""


def prepare(config: RunConfig, *, weights_only: bool = False) -> Prepared:
    """Do everything that can be refused in seconds, before what takes minutes. weights_only: to evaluate, not to train.

    Raises InputError, StreamError or WeightSyncError.
    """
    check_backend(config.weights.type, torch.device(config.device))
    OBJECTIVES[config.learner.objective.type]  # imports what a package brings
    config.tracking.check_packages()
    connection = redis_connection(config)
    weights = config.weights
    store = RendezvousStore(weights.host, weights.port)
    server = WeightServer(weights.serve_host, weights.serve_port, weights.host)
    renderer = Renderer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    training = _rendered(config, renderer, config.prompts, "prompts")
    evaluation = config.evaluation
    held_out = (
        []
        if evaluation is None
        else _rendered(config, renderer, evaluation.prompts, "evaluation.prompts", limit=evaluation.max_prompts)
    )
    stops = config.rollout.sampling.stop_token_ids
    warnings = [warning for one in (*training, *held_out) for warning in one.check(stops)]
    problems = [problem for one in training for problem in one.problems]
    if shared := overlap_warning(problems, [problem for one in held_out for problem in one.problems]):
        warnings.append(shared)
    for warning in dict.fromkeys(warnings):
        log.warning("%s", warning)
    made = made_of.made_of(
        config, problems, None if evaluation is None else [problem for one in held_out for problem in one.read]
    )
    beginning = Beginning.of(config, made, weights_only=weights_only)
    folder = RunFolder(config.folder)
    identity, holder = identity_of(folder.identity, folder.path), holder_now(folder.path)
    fence = Fence(connection, config.name, identity, holder, config.deadlines.lease_s)
    fence.take()
    fenced = FencedConnection(connection, fence)
    streams = {
        name: RedisStream(fenced, config.name, name, CONSUMER, NEVER_RECLAIM_S, one_suspect=False) for name in ALL
    }
    try:
        if not weights_only:
            _check_leftovers(config, connection, beginning, streams)
    except InputError:
        fence.close()
        raise
    loaded = threading.Event()
    return Prepared(
        connection=connection,
        fence=fence,
        fenced=fenced,
        streams=streams,
        beginning=beginning,
        store=store,
        server=server,
        training=training,
        held_out=held_out,
        text_of=renderer.decoder(),
        loaded=loaded,
        health=HealthServer(
            config.learner.metrics_host, config.learner.metrics_port, ready=loaded.is_set, run=config.name
        ),
    )


def _rendered(
    config: RunConfig, renderer: Renderer, prompts: PromptsConfig, section: str, limit: int | None = None
) -> list[RenderedProblems]:
    """The problems of each source of a section of prompts."""
    noted = RunFolder(config.folder).left_out
    return [
        RenderedProblems(
            settings,
            renderer,
            max_prompt_tokens=config.model.max_length - config.sampling_of(settings).max_tokens,
            limit=limit,
            leave_out=partial(left_out, noted, place),
        )
        for place, settings in prompts.by_place(section).items()
    ]


def _probes(config: RunConfig, training: Sequence[RenderedProblems]) -> tuple[tuple[int, ...], ...]:
    """Probes of the weights, of the first prompts of each source."""
    first = [one.token_ids(problem) for one in training for problem in one.problems[: max(1, 64 // len(training))]]
    return probe_tokens(first, min(config.weights.probe_tokens, config.model.max_length - 1))


def _check_leftovers(
    config: RunConfig, connection: RedisConnection, beginning: Beginning, streams: Mapping[str, RedisStream]
) -> None:
    """Raises InputError if a run without a checkpoint finds the queues of another."""
    leftovers = Leftovers(connection, config.name)
    if beginning.checkpoint is None:
        issued = RedisIssueLog(connection, streams[PROMPTS]).issued_count()
        lost = lost_groups(beginning.ledger, issued, [streams[name] for name in TRAINING])
        folder = str(RunFolder(config.folder).checkpoints)
        leftovers.check(beginning.state.made_of, issued=issued, lost=lost, folder=folder)
    leftovers.note(beginning.state.made_of)


def past_damage(config: RunConfig, team: Team, prepared: Prepared, *, weights_only: bool) -> Prepared:
    """The same, if the tensors of its checkpoint are whole, which takes every rank to find out; else with the newest checkpoint
    of which they are. Groups that the newer ones held as settled are lost then, and issued again."""
    checkpoint = prepared.beginning.checkpoint
    if checkpoint is None or team.damage(checkpoint) is None:
        return prepared
    made = prepared.beginning.state.made_of
    beginning = Beginning.of(
        config,
        made,
        weights_only=weights_only,
        damage_of=lambda checkpoint: visible_damage(checkpoint) or team.damage(checkpoint),
    )
    return dataclasses.replace(prepared, beginning=beginning)


def _give_back(streams: Sequence[RedisStream], replica_id: str) -> None:
    """Let other replicas have what one that is lost had claimed, at once and not after the idle time of claims."""
    for stream in streams:
        stream.release_of(replica_id)


def main() -> int:
    """Run one rank; returns the exit code."""
    parser = service_parser("learner")
    parser.add_argument("--evaluate-only", action="store_true", help="evaluate the weights as they are, once")
    arguments = begin(parser)
    config = load(arguments.config, arguments.overrides)
    name_nccl_host()
    is_first = os.environ.get("RANK", "0") == "0"
    with held_by_learner(RunFolder(config.folder)) if is_first else nullcontext():
        return _rank(config, arguments, is_first=is_first)


def _rank(config: RunConfig, arguments: Namespace, *, is_first: bool) -> int:
    """What one rank does; the exit code."""
    prepared = prepare(config, weights_only=arguments.evaluate_only) if is_first else None
    waits = config.deadlines.first_replica_s, config.deadlines.groups_s, config.deadlines.evaluation_s
    engine = DeepSpeedEngine(
        config.model,
        config.learner,
        config.device,
        collective_timeout_s=sum(waits),  # the other ranks sit in a broadcast while rank 0 waits for any of these
        seed=config.seed,
    )
    team = Team(config, engine)
    stopping = StopSignal()  # on every rank, though only rank 0 acts on it, at the end of a step
    if prepared is None:
        team.follow()
        engine.close()
        return DONE
    try:
        whole = past_damage(config, team, prepared, weights_only=arguments.evaluate_only)
        code = _lead(config, team, arguments, stopping, whole)
        prepared.fence.close()
        return code
    finally:
        if team.is_in_step:  # if not, this would wait for ranks that wait for this one; they end when it ends
            team.finish()
            engine.close()


def _export_hardware(config: RunConfig, team: Team) -> None:
    """The metrics of what the learner runs on."""
    RANKS.set(team.engine.world_size)
    if config.price.gpu_hour is not None:
        GPU_HOUR_PRICE.set(config.price.gpu_hour)
    if config.device == "cuda":
        export_gpu_memory()


def _evaluator(
    config: RunConfig,
    prepared: Prepared,
    prompts: RedisStream,
    attempt: int,
    collector: Collector,
    publisher: WeightPublisher,
) -> Evaluator | None:
    """What evaluates on the held-out problems; None: there are none."""
    if config.evaluation is None:
        return None
    held_out = HeldOut(
        settings=config.evaluation,
        sources=[PromptSource(one.problems, one.token_ids) for one in prepared.held_out],
        issue_log=lambda version: RedisIssueLog(prepared.fenced, prompts, f"issued-{attempt}-{version}"),
        attempt=attempt,
    )
    return Evaluator(config, held_out, collector, publisher)


def _lead(config: RunConfig, team: Team, arguments: Namespace, stopping: StopSignal, prepared: Prepared) -> int:
    """What rank 0 does: put the loop together, run it, and write the summary."""
    connection, training, beginning = prepared.connection, prepared.training, prepared.beginning
    folder = RunFolder(config.folder)
    membership = Membership(connection, config.name, config.deadlines.lease_s)
    attempt = max(membership.next_attempt(), last_attempt(folder.settled) + 1)  # the server may have lost its count
    prepared.loaded.set()
    announce_address(arguments.services_folder, "learner", prepared.health.url)

    streams = prepared.streams
    depths = StreamDepths(
        list(streams.values()),
        also=(partial(look_at_redis, connection), partial(look_at_disk, folder.path)),
    )
    _export_hardware(config, team)
    sampled = Sampled()
    records = Records(
        folder,
        sampled,
        beginning.counts,
        attempt,
        policy_version=beginning.state.policy_version,
        trackers=[] if arguments.evaluate_only else open_trackers(config),
    )
    publisher = WeightPublisher(
        config,
        membership=membership,
        channel=ProcessGroupChannel(prepared.store, bucket_device(config.weights.type, team.engine.device)),
        address=(config.weights.host, prepared.store.port),
        server=prepared.server,
        on_sync=records.sync,
        on_lost=partial(_give_back, [streams[EVALUATION_PROMPTS], streams[PROMPTS]]),
        stopping=stopping,
    )
    collector = Collector(streams[SCORED], streams[DEAD], beginning.ledger, sampled, records.death)
    issue_log = RedisIssueLog(prepared.fenced, streams[PROMPTS])
    issuer = PromptIssuer(config, [PromptSource(one.problems, one.token_ids) for one in training], issue_log)
    record = None
    if not arguments.evaluate_only:
        issuer.begin(beginning.prompts, beginning.state.issued)
        record = beginning.ledger.begin_record(folder.settled, attempt, beginning.state.policy_version)
    intake = Intake(
        config,
        state=beginning.state,
        ledger=beginning.ledger,
        issuer=issuer,
        collector=collector,
        replicas=publisher,
        streams=[streams[name] for name in TRAINING],
        tell=lambda waiting: records.note_waiting(msgspec.structs.replace(waiting, depths=dict(depths.latest))),
        record=record,
    )
    evaluator = _evaluator(config, prepared, streams[EVALUATION_PROMPTS], attempt, collector, publisher)
    probes = _probes(config, training)
    kept = None
    if config.learner.kept_groups_mib and not arguments.evaluate_only:
        kept = KeptGroups(folder.groups, config.learner.kept_groups_mib, prepared.text_of)
    loop = TrainingLoop(
        config,
        team=team,
        state=beginning.state,
        intake=intake,
        snapshots=Snapshots(team, config.weights, probes),
        publisher=publisher,
        evaluator=evaluator,
        records=records,
        stopping=stopping,
        kept=kept,
    )
    try:
        if beginning.checkpoint is not None:
            loop.load(beginning.checkpoint, weights_only=arguments.evaluate_only)
        elif not arguments.evaluate_only:
            intake.restore()  # of what an earlier start has left on the streams
        records.begin()
        done = loop.evaluate_only() if arguments.evaluate_only else loop.run()
    finally:
        publisher.close()
        if kept is not None:
            kept.close()
        records.close()
        if record is not None:
            record.close()
        depths.close()
        prepared.health.close()
    if not arguments.evaluate_only:
        write(folder, summarize(folder, intake.counts(), records.counts(), membership.last_leases()))
    return DONE if done else INTERRUPTED


if __name__ == "__main__":
    end(main)
