"""The learner as a process: `python -m learner RUN.toml`, one per rank under torchrun."""

import gc
import os
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial

import msgspec

from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.evaluation import Evaluator, HeldOut
from learner.intake.collector import Collector, Sampled
from learner.intake.depths import StreamDepths
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.kept_groups import KeptGroups
from learner.loop import TrainingLoop
from learner.metrics import GPU_HOUR_PRICE, RANKS
from learner.preparing import Prepared, past_damage, prepare
from learner.publish.publisher import WeightPublisher
from learner.publish.snapshot import Snapshots, probe_tokens
from learner.publish.sync_report import last_sync
from learner.ranks import Team
from learner.records import Records
from learner.surroundings import IdleConsumers, look_at_disk, look_at_redis
from learner.tracking.choice import open_trackers
from services.config import RunConfig
from services.config.load import load
from services.datasets.rendering import RenderedProblems
from services.entry import DONE, INTERRUPTED, StopSignal, begin, end, service_parser
from services.gpu_memory import export_gpu_memory
from services.identity import name_nccl_host
from services.run.addresses import announce_address
from services.run.folder import RunFolder
from services.run.learner_lock import held_by_learner
from services.run.settled import last_attempt
from services.run.summary import summarize, write
from services.streams.names import DEAD, EVALUATION_PROMPTS, PROMPTS, SCORED, TRAINING
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.weights.collective import bucket_device
from services.weights.membership import Membership
from services.weights.process_group import ProcessGroupChannel


def _probes(config: RunConfig, training: Sequence[RenderedProblems]) -> tuple[tuple[int, ...], ...]:
    """Probes of the weights, of the first prompts of each source."""
    first = [one.token_ids(problem) for one in training for problem in one.problems[: max(1, 64 // len(training))]]
    return probe_tokens(first, min(config.weights.probe_tokens, config.model.max_length - 1))


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
    # On every rank, though only rank 0 acts on it, at the end of a step.
    stopping = StopSignal(None if prepared is None else partial(_on_stop, prepared))
    gc.collect()
    gc.freeze()  # model, problems and modules stay until the end: the collector need not look through them every few steps
    if prepared is None:
        team.follow()
        engine.close()
        return DONE
    try:
        whole = past_damage(config, team, prepared, weights_only=arguments.evaluate_only)
        code = _lead(config, team, arguments, stopping, whole)
        prepared.fence.close()
        prepared.guard.close()
        return code
    finally:
        if team.is_in_step:  # if not, this would wait for ranks that wait for this one; they end when it ends
            team.finish()
            engine.close()


def _on_stop(prepared: Prepared) -> None:
    """In the signal's handler: the step in hand has killed nobody, and a Redis server that is away is not waited for."""
    prepared.guard.excuse()
    prepared.connection.hurry()


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


def _publisher(
    config: RunConfig,
    team: Team,
    prepared: Prepared,
    membership: Membership,
    records: Records,
    stopping: StopSignal,
) -> WeightPublisher:
    """What carries weights to the replicas."""
    streams = prepared.streams
    last = last_sync(RunFolder(config.folder).syncs)
    return WeightPublisher(
        config,
        membership=membership,
        channel=ProcessGroupChannel(prepared.store, bucket_device(config.weights.type, team.engine.device)),
        address=(config.weights.host, prepared.store.port),
        server=prepared.server,
        on_sync=records.sync,
        on_lost=partial(_give_back, [streams[EVALUATION_PROMPTS], streams[PROMPTS]]),
        stopping=stopping,
        generation=max(prepared.beginning.state.pg_generation, last.pg_generation),
        rounding=last.rounding,
    )


def _issuer(config: RunConfig, prepared: Prepared, *, trains: bool) -> PromptIssuer:
    """What issues prompts; it begins where the checkpoint says, unless the run is only evaluated."""
    sources = [PromptSource(one.problems, one.token_ids) for one in prepared.training]
    issuer = PromptIssuer(config, sources, RedisIssueLog(prepared.fenced, prepared.streams[PROMPTS]))
    if trains:
        issuer.begin(prepared.beginning.prompts, prepared.beginning.state.issued)
    return issuer


def _lead(config: RunConfig, team: Team, arguments: Namespace, stopping: StopSignal, prepared: Prepared) -> int:
    """What rank 0 does: put the loop together, run it, and write the summary."""
    streams, beginning, trains = prepared.streams, prepared.beginning, not arguments.evaluate_only
    folder = RunFolder(config.folder)
    membership = Membership(prepared.connection, config.name, config.deadlines.lease_s)
    attempt = max(membership.next_attempt(), last_attempt(folder.settled) + 1)  # the server may have lost its count
    prepared.loaded.set()
    announce_address(arguments.services_folder, "learner", prepared.health.url)
    _export_hardware(config, team)
    sampled = Sampled()
    with ExitStack() as closing:  # in the opposite order
        closing.callback(prepared.health.close)
        depths = StreamDepths(
            list(streams.values()),
            also=(
                partial(look_at_redis, prepared.connection),
                partial(look_at_disk, folder.path),
                IdleConsumers(list(streams.values())).look,
            ),
        )
        closing.callback(depths.close)
        records = Records(
            folder,
            sampled,
            beginning.counts,
            attempt,
            policy_version=beginning.state.policy_version,
            trackers=open_trackers(config) if trains else [],
        )
        closing.callback(records.close)
        record = kept = None
        if trains:
            record = beginning.ledger.begin_record(folder.settled, attempt, beginning.state.policy_version)
            closing.callback(record.close)
        if trains and config.learner.kept_groups_mib:
            kept = KeptGroups(folder.groups, config.learner.kept_groups_mib, prepared.text_of)
            closing.callback(kept.close)
        publisher = _publisher(config, team, prepared, membership, records, stopping)
        closing.callback(publisher.close)
        collector = Collector(streams[SCORED], streams[DEAD], beginning.ledger, sampled, records.death)
        intake = Intake(
            config,
            state=beginning.state,
            ledger=beginning.ledger,
            issuer=_issuer(config, prepared, trains=trains),
            collector=collector,
            replicas=publisher,
            streams=[streams[name] for name in TRAINING],
            tell=lambda waiting: records.note_waiting(msgspec.structs.replace(waiting, depths=dict(depths.latest))),
            record=record,
            guard=prepared.guard,
        )
        loop = TrainingLoop(
            config,
            team=team,
            state=beginning.state,
            intake=intake,
            snapshots=Snapshots(team, config.weights, _probes(config, prepared.training)),
            publisher=publisher,
            evaluator=_evaluator(config, prepared, streams[EVALUATION_PROMPTS], attempt, collector, publisher),
            records=records,
            stopping=stopping,
            kept=kept,
        )
        if beginning.checkpoint is not None:
            loop.load(beginning.checkpoint, weights_only=not trains)
        elif trains:
            intake.restore()  # of what an earlier start has left on the streams
        records.begin()
        done = loop.run() if trains else loop.evaluate_only()
    if trains:
        write(folder, summarize(folder, intake.counts(), records.counts(), membership.last_leases()))
    return DONE if done else INTERRUPTED


if __name__ == "__main__":
    end(main)
