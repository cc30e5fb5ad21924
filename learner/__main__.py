"""The learner as a process: `python -m learner RUN.toml`, one per rank under torchrun."""

import logging
import os
import threading
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import torch

from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.intake.collector import Collector, Sampled
from learner.intake.issuer import PromptIssuer
from learner.intake.ledger import Ledger
from learner.loop import HeldOut, TrainingLoop
from learner.objective import OBJECTIVES
from learner.publish.publisher import WeightPublisher, probe_tokens
from learner.ranks import Team
from learner.records import Records
from services.config import RunConfig
from services.config.load import load
from services.datasets.rendering import RenderedProblems, Renderer
from services.entry import DONE, INTERRUPTED, StopSignal, begin, end, redis_connection, service_parser
from services.health import HealthServer
from services.run.addresses import announce_address
from services.run.folder import DEAD, EVALUATION_PROMPTS, PROMPTS, SCORED, RunFolder
from services.run.summary import summarize, write
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.weights.membership import Membership
from services.weights.process_group import ProcessGroupChannel, RendezvousStore, bucket_device, check_backend

log = logging.getLogger("ratchet.learner")

CONSUMER = "learner"
NEVER_RECLAIM_S = 1e8
"""There is one learner, and what it holds it holds until a checkpoint: nobody else may have it."""


@dataclass(frozen=True)
class Prepared:
    """What rank 0 has before any model is loaded."""

    connection: RedisConnection
    ledger: Ledger
    counts: dict[str, Any]
    store: RendezvousStore
    training: RenderedProblems
    held_out: RenderedProblems | None
    loaded: threading.Event
    health: HealthServer
    """Ready once `loaded` is set."""


def prepare(config: RunConfig) -> Prepared:
    """All that can be refused in seconds, before what takes minutes. Raises InputError, StreamError or WeightSyncError."""
    check_backend(config.weights.type, torch.device(config.device))
    OBJECTIVES[config.learner.objective.type]  # imports what a package brings
    connection = redis_connection(config)
    ledger, counts = TrainingLoop.saved_ledger(config)
    store = RendezvousStore(config.weights.host, config.weights.port)
    renderer = Renderer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    room = config.model.max_length - config.rollout.sampling.max_tokens
    training, held_out = RenderedProblems(config.prompts, renderer, max_prompt_tokens=room), None
    if config.evaluation:
        held_out = RenderedProblems(
            config.evaluation.prompts, renderer, max_prompt_tokens=room, limit=config.evaluation.max_prompts
        )
    loaded = threading.Event()
    health = HealthServer(config.learner.metrics_host, config.learner.metrics_port, ready=loaded.is_set)
    return Prepared(connection, ledger, counts, store, training, held_out, loaded, health)


def main() -> int:
    parser = service_parser("learner")
    parser.add_argument("--evaluate-only", action="store_true", help="one evaluation of the weights as they are")
    arguments = begin(parser)
    config = load(arguments.config, arguments.overrides)
    prepared = prepare(config) if os.environ.get("RANK", "0") == "0" else None
    waits = config.deadlines.first_replica_s, config.deadlines.groups_s, config.deadlines.evaluation_s
    engine = DeepSpeedEngine(
        config.model,
        config.learner,
        config.device,
        collective_timeout_s=sum(waits),  # the other ranks sit in a broadcast while rank 0 waits for any of these
    )
    team = Team(config, engine)
    stopping = StopSignal()  # on every rank: only rank 0 acts on it, at the end of a step
    if prepared is None:
        team.follow()
        engine.close()
        return DONE
    try:
        return _lead(config, team, arguments, stopping, prepared)
    finally:
        if team.is_in_step:  # otherwise it would wait for ranks that wait for it; they end with this one
            team.finish()
            engine.close()


def _lead(config: RunConfig, team: Team, arguments: Namespace, stopping: StopSignal, prepared: Prepared) -> int:
    connection, training = prepared.connection, prepared.training
    folder = RunFolder(config.folder)
    membership = Membership(connection, config.name, config.deadlines.lease_s)
    attempt = membership.next_attempt()
    prepared.loaded.set()
    announce_address(arguments.services_folder, "learner", prepared.health.url)

    def stream(name: str) -> RedisStream:
        return RedisStream(connection, config.name, name, CONSUMER, NEVER_RECLAIM_S)

    sampled = Sampled()
    records = Records(folder, sampled, prepared.counts, attempt)
    first_prompts = [training.token_ids(problem) for problem in training.problems[:64]]
    probe = probe_tokens(first_prompts, min(config.weights.probe_tokens, config.model.max_length - 1))
    channel = ProcessGroupChannel(prepared.store, bucket_device(config.weights.type, team.engine.device))
    publisher = WeightPublisher(
        config, membership, channel, (config.weights.host, prepared.store.port), records.sync, stopping
    )
    held_out = None
    if prepared.held_out is not None:
        evaluation_prompts = stream(EVALUATION_PROMPTS)
        held_out = HeldOut(
            problems=prepared.held_out.problems,
            token_ids=prepared.held_out.token_ids,
            issue_log=lambda version: RedisIssueLog(connection, evaluation_prompts, f"issued-{attempt}-{version}"),
            attempt=attempt,
        )
    loop = TrainingLoop(
        config,
        team,
        publisher,
        PromptIssuer(config, training.problems, training.token_ids, RedisIssueLog(connection, stream(PROMPTS))),
        Collector(stream(SCORED), stream(DEAD), prepared.ledger, sampled),
        prepared.ledger,
        records,
        held_out,
        probe,
        stopping,
    )
    try:
        loop.restore(weights_only=arguments.evaluate_only)
        records.begin()
        done = loop.evaluate_only() if arguments.evaluate_only else loop.run()
    finally:
        publisher.close()
        records.close()
        prepared.health.close()
    if not arguments.evaluate_only:
        write(folder, summarize(folder, loop.groups(), records.counts(), membership.last_leases()))
    return DONE if done else INTERRUPTED


if __name__ == "__main__":
    end(main)
