"""The learner as a process: `python -m learner RUN.toml`, one per rank under torchrun."""

import logging
from argparse import Namespace

from learner.collect import Collector, Sampled
from learner.deepspeed_engine import DeepSpeedEngine
from learner.loop import HeldOut, TrainingLoop
from learner.publish import WeightPublisher, probe_tokens
from learner.records import Records
from learner.team import Team
from services.config import RunConfig
from services.config.load import load
from services.entry import DONE, INTERRUPTED, StopSignal, begin, end, redis_connection, service_parser
from services.health import HealthServer
from services.membership import Membership
from services.prompts.issuer import PromptIssuer
from services.prompts.rendering import RenderedProblems, Renderer
from services.run_folder import DEAD, EVALUATION_PROMPTS, PROMPTS, SCORED, RunFolder
from services.services_file import announce_address
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.summary import summarize, write
from services.weights.process_group import ProcessGroupChannel, RendezvousStore

log = logging.getLogger("ratchet.learner")

CONSUMER = "learner"
NEVER_RECLAIM_S = 1e8
"""There is one learner, and what it holds it holds until a checkpoint: nobody else may have it."""


def main() -> int:
    parser = service_parser("learner")
    parser.add_argument("--evaluate-only", action="store_true", help="one evaluation of the weights as they are")
    arguments = begin(parser)
    config = load(arguments.config, arguments.overrides)
    waits = config.deadlines.first_replica_s, config.deadlines.groups_s, config.deadlines.evaluation_s
    engine = DeepSpeedEngine(
        config.model,
        config.learner,
        config.device,
        collective_timeout_s=sum(waits),  # the other ranks sit in a broadcast while rank 0 waits for any of these
    )
    team = Team(config, engine)
    stopping = StopSignal()  # on every rank: only rank 0 acts on it, at the end of a step
    if engine.rank != 0:
        team.follow()
        engine.close()
        return DONE
    try:
        return _lead(config, team, arguments, stopping)
    finally:
        team.finish()
        engine.close()


def _lead(config: RunConfig, team: Team, arguments: Namespace, stopping: StopSignal) -> int:
    connection = redis_connection(config)
    folder = RunFolder(config.folder)
    membership = Membership(connection, config.name, config.deadlines.lease_s)
    attempt = membership.next_attempt()
    health = HealthServer(config.learner.metrics_host, config.learner.metrics_port, ready=lambda: True)
    announce_address(arguments.services_folder, "learner", health.url)

    renderer = Renderer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    room = config.model.max_length - config.rollout.sampling.max_tokens
    training = RenderedProblems(config.prompts, renderer, max_prompt_tokens=room)

    def stream(name: str) -> RedisStream:
        return RedisStream(connection, config.name, name, CONSUMER, NEVER_RECLAIM_S)

    ledger, counts = TrainingLoop.saved_ledger(config)
    sampled = Sampled()
    records = Records(folder, sampled, counts, attempt)
    first_prompts = [training.token_ids(problem) for problem in training.problems[:64]]
    probe = probe_tokens(first_prompts, min(config.weights.probe_tokens, config.model.max_length - 1))
    store = RendezvousStore(config.weights.host, config.weights.port)
    publisher = WeightPublisher(
        config, membership, ProcessGroupChannel(store), (config.weights.host, store.port), records.sync, stopping
    )
    held_out = None
    if config.evaluation:
        chosen = RenderedProblems(
            config.evaluation.prompts, renderer, max_prompt_tokens=room, limit=config.evaluation.max_prompts
        )
        evaluation_prompts = stream(EVALUATION_PROMPTS)
        held_out = HeldOut(
            problems=chosen.problems,
            token_ids=chosen.token_ids,
            issue_log=lambda version: RedisIssueLog(connection, evaluation_prompts, f"issued-{attempt}-{version}"),
            attempt=attempt,
        )
    loop = TrainingLoop(
        config,
        team,
        publisher,
        PromptIssuer(config, training.problems, training.token_ids, RedisIssueLog(connection, stream(PROMPTS))),
        Collector(stream(SCORED), stream(DEAD), ledger, sampled),
        ledger,
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
        health.close()
    if not arguments.evaluate_only:
        write(folder, summarize(folder, loop.groups(), records.counts(), membership.last_leases()))
    return DONE if done else INTERRUPTED


if __name__ == "__main__":
    end(main)
