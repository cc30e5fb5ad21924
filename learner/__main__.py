"""The learner as a process: `python -m learner RUN.toml`, one per rank under torchrun."""

import logging
from functools import lru_cache
from typing import Any

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
from services.prompts.dataset import Problem, load_problems
from services.prompts.issuer import PromptIssuer
from services.prompts.rendering import Renderer
from services.redis_connection import RedisConnection
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
    if engine.rank != 0:
        team.follow()
        engine.close()
        return DONE
    try:
        return _lead(config, team, arguments)
    finally:
        team.finish()
        engine.close()


def _lead(config: RunConfig, team: Team, arguments: Any) -> int:
    stopping = StopSignal()
    connection = redis_connection(config)
    folder = RunFolder(config.folder)
    membership = Membership(connection, config.name, config.deadlines.lease_s)
    attempt = membership.next_attempt()
    health = HealthServer(config.learner.metrics_host, config.learner.metrics_port, ready=lambda: True)
    announce_address(arguments.services_folder, "learner", health.url)

    problems = load_problems(config.prompts)
    renderer = Renderer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    longest_prompt = config.model.max_length - config.rollout.sampling.max_tokens

    @lru_cache(maxsize=65536)
    def rendered(row: int, held_out: bool) -> list[int]:
        source, settings = (held_out_problems, held_out_settings) if held_out else (problems_by_row, config.prompts)
        return renderer.render(source[row], settings, max_prompt_tokens=longest_prompt)

    problems_by_row = {problem.row: problem for problem in problems}
    held_out_settings = config.evaluation.prompts if config.evaluation else config.prompts
    held_out_problems: dict[int, Problem] = {}
    if config.evaluation:
        chosen = load_problems(config.evaluation.prompts, limit=config.evaluation.max_prompts)
        held_out_problems = {problem.row: problem for problem in chosen}

    def stream(name: str) -> RedisStream:
        return RedisStream(connection, config.name, name, CONSUMER, NEVER_RECLAIM_S)

    ledger, counts = TrainingLoop.saved_ledger(config)
    sampled = Sampled()
    records = Records(folder, sampled, counts, attempt)
    probe = probe_tokens(
        [rendered(problem.row, False) for problem in problems[:64]],
        min(config.weights.probe_tokens, config.model.max_length - 1),
    )
    store = RendezvousStore(config.weights.host, config.weights.port)
    publisher = WeightPublisher(
        config, membership, ProcessGroupChannel(store), (config.weights.host, store.port), records.sync, stopping
    )
    loop = TrainingLoop(
        config,
        team,
        publisher,
        PromptIssuer(
            config, problems, lambda problem: rendered(problem.row, False), RedisIssueLog(connection, stream(PROMPTS))
        ),
        Collector(stream(SCORED), stream(DEAD), ledger, sampled),
        ledger,
        records,
        _held_out(connection, stream(EVALUATION_PROMPTS), held_out_problems, rendered, attempt)
        if config.evaluation
        else None,
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


def _held_out(
    connection: RedisConnection, prompts: RedisStream, problems: dict[int, Problem], rendered: Any, attempt: int
) -> HeldOut:
    return HeldOut(
        problems=list(problems.values()),
        token_ids=lambda problem: rendered(problem.row, True),
        issue_log=lambda version: RedisIssueLog(connection, prompts, counter=f"issued-{attempt}-{version}"),
        attempt=attempt,
    )


if __name__ == "__main__":
    end(main)
