"""The learner as a process: `python -m learner RUN.toml`, one per rank under torchrun."""

import logging
import os
import threading
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import torch

from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.evaluation import Evaluator, HeldOut
from learner.intake.collector import Collector, Sampled
from learner.intake.depths import StreamDepths
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer
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
from services.datasets.overlap import overlap_warning
from services.datasets.rendering import RenderedProblems, Renderer
from services.entry import DONE, INTERRUPTED, StopSignal, begin, end, redis_connection, service_parser
from services.gpu_memory import export_gpu_memory
from services.health import HealthServer
from services.identity import name_nccl_host
from services.run import made_of
from services.run.addresses import announce_address
from services.run.folder import RunFolder
from services.run.left_out import left_out
from services.run.summary import summarize, write
from services.streams.names import DEAD, EVALUATION_PROMPTS, PROMPTS, SCORED, TRAJECTORIES
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
    beginning: Beginning
    store: RendezvousStore
    server: WeightServer
    training: RenderedProblems
    held_out: RenderedProblems | None
    text_of: Callable[[Sequence[int]], str]
    """The text of some tokens; for one thread."""
    lost: list[int]
    """Sequence numbers of groups that were issued, are not settled and are on no stream."""
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
    room = config.model.max_length - config.rollout.sampling.max_tokens
    noted = RunFolder(config.folder).left_out
    training = RenderedProblems(
        config.prompts, renderer, max_prompt_tokens=room, leave_out=partial(left_out, noted, "prompts")
    )
    stops = config.rollout.sampling.stop_token_ids
    warnings = training.check(stops)
    held_out = None
    if config.evaluation:
        held_out = RenderedProblems(
            config.evaluation.prompts,
            renderer,
            max_prompt_tokens=room,
            limit=config.evaluation.max_prompts,
            leave_out=partial(left_out, noted, "evaluation.prompts"),
        )
        warnings += held_out.check(stops)
        if shared := overlap_warning(training.problems, held_out.problems):
            warnings.append(shared)
    for warning in dict.fromkeys(warnings):
        log.warning("%s", warning)
    made = made_of.made_of(config, training.problems, held_out.read if held_out else None)
    beginning = Beginning.of(config, made, weights_only=weights_only)
    lost = [] if weights_only else _lost_groups(config, connection, beginning)
    loaded = threading.Event()
    return Prepared(
        connection=connection,
        beginning=beginning,
        store=store,
        server=server,
        training=training,
        held_out=held_out,
        text_of=renderer.decoder(),
        lost=lost,
        loaded=loaded,
        health=HealthServer(
            config.learner.metrics_host, config.learner.metrics_port, ready=loaded.is_set, run=config.name
        ),
    )


def _lost_groups(config: RunConfig, connection: RedisConnection, beginning: Beginning) -> list[int]:
    """See Prepared.lost. Raises InputError if a run without a checkpoint finds the queues of another."""
    streams = [_stream(config, connection, name) for name in (PROMPTS, TRAJECTORIES, SCORED, DEAD)]
    issued = RedisIssueLog(connection, streams[0]).issued_count()
    lost = lost_groups(beginning.ledger, issued, streams)
    leftovers = Leftovers(connection, config.name)
    if beginning.checkpoint is None:
        folder = str(RunFolder(config.folder).checkpoints)
        leftovers.check(beginning.state.made_of, issued=issued, lost=lost, folder=folder)
    leftovers.note(beginning.state.made_of)
    return lost


def _stream(config: RunConfig, connection: RedisConnection, name: str) -> RedisStream:
    return RedisStream(connection, config.name, name, CONSUMER, NEVER_RECLAIM_S)


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
        return _lead(config, team, arguments, stopping, prepared)
    finally:
        if team.is_in_step:  # if not, this would wait for ranks that wait for this one; they end when it ends
            team.finish()
            engine.close()


def _lead(config: RunConfig, team: Team, arguments: Namespace, stopping: StopSignal, prepared: Prepared) -> int:
    """What rank 0 does: put the loop together, run it, and write the summary."""
    connection, training, beginning = prepared.connection, prepared.training, prepared.beginning
    folder = RunFolder(config.folder)
    membership = Membership(connection, config.name, config.deadlines.lease_s)
    attempt = membership.next_attempt()
    prepared.loaded.set()
    announce_address(arguments.services_folder, "learner", prepared.health.url)

    names = EVALUATION_PROMPTS, PROMPTS, TRAJECTORIES, SCORED, DEAD
    streams = {name: _stream(config, connection, name) for name in names}
    depths = StreamDepths(
        list(streams.values()),
        also=(partial(look_at_redis, connection), partial(look_at_disk, folder.path)),
    )
    RANKS.set(team.engine.world_size)
    if config.price.gpu_hour is not None:
        GPU_HOUR_PRICE.set(config.price.gpu_hour)
    if config.device == "cuda":
        export_gpu_memory()
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
    issue_log = RedisIssueLog(connection, streams[PROMPTS])
    issuer = PromptIssuer(config, training.problems, training.token_ids, issue_log)
    if prepared.lost:
        log.warning("%d groups were settled after the checkpoint, and are issued again", len(prepared.lost))
        issuer.issue_again(prepared.lost)
    intake = Intake(
        config,
        state=beginning.state,
        ledger=beginning.ledger,
        issuer=issuer,
        collector=collector,
        replicas=publisher,
        tell=lambda waiting: records.note_waiting(msgspec.structs.replace(waiting, depths=dict(depths.latest))),
    )
    evaluator = None
    if prepared.held_out is not None and config.evaluation is not None:
        held_out = HeldOut(
            settings=config.evaluation,
            problems=prepared.held_out.problems,
            token_ids=prepared.held_out.token_ids,
            issue_log=lambda version: RedisIssueLog(
                connection, streams[EVALUATION_PROMPTS], f"issued-{attempt}-{version}"
            ),
            attempt=attempt,
        )
        evaluator = Evaluator(config, held_out, collector, publisher)
    first_prompts = [training.token_ids(problem) for problem in training.problems[:64]]
    probes = probe_tokens(first_prompts, min(config.weights.probe_tokens, config.model.max_length - 1))
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
        records.begin()
        done = loop.evaluate_only() if arguments.evaluate_only else loop.run()
    finally:
        publisher.close()
        if kept is not None:
            kept.close()
        records.close()
        depths.close()
        prepared.health.close()
    if not arguments.evaluate_only:
        write(folder, summarize(folder, intake.counts(), records.counts(), membership.last_leases()))
    return DONE if done else INTERRUPTED


if __name__ == "__main__":
    end(main)
