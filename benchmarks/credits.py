"""How long an engine stands empty for want of credits: the learner's intake over real Redis, with and without its thread.

    python -m benchmarks.credits                  # both, alternating, three rounds each: a minute or two
    python -m benchmarks.credits --rounds 1 --steps 10

The engine and the learner's step only sleep; streams, admission, collector, sifting, ledger and issuing are the run's own. The
engine holds every prompt that it can get for SAMPLE_S, as one batch that prompts join and leave at any time. A little more than
half of the groups have equal rewards and are dropped, as in the addition example. Weights are confirmed SYNC_S after the step.

Columns: the share of the time in which the engine has no sequence, and steps a second.
"""

import argparse
import heapq
import statistics
import tempfile
import threading
import time
import uuid
from pathlib import Path

from learner.intake.collector import Collector, Sampled
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.ledger import Ledger
from learner.run_state import RunState
from services.config import RunConfig
from services.config.load import load
from services.datasets.dataset import Problem
from services.streams import Claim
from services.streams.names import DEAD, PROMPTS, SCORED, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream, empty_queues
from services.wire.codec import Array, decode, encode
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from services.wire.trajectory import Group, Trajectory, VersionSpan
from services.wire.verdict import Score

STEP_S, SYNC_S, SAMPLE_S = 0.3, 0.1, 0.15
KEPT_OF_TEN = 5  # of ten groups in a row
ROOT = Path(__file__).parents[1]


class Replicas:
    """Holds the version that was published SYNC_S ago."""

    def __init__(self) -> None:
        self._published = [(0.0, 0)]

    def publish(self, version: int) -> None:
        self._published.append((time.monotonic() + SYNC_S, version))

    @property
    def confirmed_version(self) -> int | None:
        now_s = time.monotonic()
        return [version for at_s, version in self._published if at_s <= now_s][-1]

    def should_stop(self) -> bool:
        return False


class Engine:
    """Claims prompts as they come, and appends each scored SAMPLE_S later."""

    def __init__(self, prompts: RedisStream, scored: RedisStream, replicas: Replicas) -> None:
        self._prompts = prompts
        self._scored = scored
        self._replicas = replicas
        self._closing = threading.Event()
        self.empty_s = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        out: list[tuple[float, int, Claim, ScoredGroup]] = []
        while not self._closing.is_set():
            begun_s = time.monotonic()
            claims = self._prompts.claim(64, max(0.0, min(0.05, out[0][0] - begun_s)) if out else 0.05)
            if not out:
                self.empty_s += time.monotonic() - begun_s
            for claim in claims:
                prompt = decode(claim.payload, Prompt)
                done = answered(prompt, self._replicas.confirmed_version or 0)
                heapq.heappush(out, (time.monotonic() + SAMPLE_S, prompt.sequence_number, claim, done))
            ready = []
            while out and out[0][0] <= time.monotonic():
                ready.append(heapq.heappop(out))
            self._prompts.hand_over_many([(claim, encode(done)) for _, _, claim, done in ready], self._scored)


def answered(prompt: Prompt, version: int) -> ScoredGroup:
    """Two responses of four tokens; in half of the groups their rewards are equal."""
    kept = prompt.sequence_number * 7 % 10 < KEPT_OF_TEN
    trajectory = Trajectory(
        token_ids=Array.of([1, 2, 3, 4], "<i4"),
        behavior_logp=Array.of([-1.0] * 4, "<f4"),
        spans=(VersionSpan(version, 0, 4),),
        finish_reason="stop",
        text="",
    )
    scores = [
        Score(verdict="correct" if reward else "incorrect", reward=reward, detail="", elapsed_s=0.0)
        for reward in (1.0, 0.0 if kept else 1.0)
    ]
    group = Group(prompt=prompt, trajectories=(trajectory, trajectory), replica_id="r")
    return ScoredGroup(group=group, scores=tuple(scores), verifier_id="v")


def measured(config: RunConfig, connection: RedisConnection, steps: int, *, ahead: bool) -> tuple[float, float]:
    """The engine's empty share, and steps a second. ahead: whether the thread gathers during steps, as in a run."""
    names = (PROMPTS, TRAJECTORIES, SCORED, DEAD)
    streams = {name: RedisStream(connection, config.name, name, "learner", 1e8) for name in names}
    state, ledger, replicas = RunState.begin(config.learner), Ledger(), Replicas()
    problems = [Problem(row=row, prompt=f"{row}", reference="", grader="exact") for row in range(999)]
    issuer = PromptIssuer(
        config, [PromptSource(problems, lambda _: [1, 2])], RedisIssueLog(connection, streams[PROMPTS])
    )
    intake = Intake(
        config,
        state=state,
        ledger=ledger,
        issuer=issuer,
        collector=Collector(streams[SCORED], streams[DEAD], ledger, Sampled()),
        replicas=replicas,
        streams=list(streams.values()),
    )
    of = {name: RedisStream(connection, config.name, name, "engine", 1e8) for name in names}
    intake.issue()
    engine, begun_s = Engine(of[PROMPTS], of[SCORED], replicas), time.monotonic()
    for _ in range(steps):
        intake.issue()
        gathered = intake.gather()
        assert gathered is not None
        if ahead:
            intake.begin_ahead()
        time.sleep(STEP_S)
        with intake.lock:
            intake.settle(gathered, trained=True)
            state.policy_version += 1
        replicas.publish(state.policy_version)
    seconds = time.monotonic() - begun_s
    empty_s = engine.empty_s
    intake.end_ahead()
    engine.close()
    empty_queues(connection, config.name)
    return empty_s / seconds, steps / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/0")
    parser.add_argument("--ahead", choices=["on", "off", "both"], default="both")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-lag", type=int, default=2)
    asked = parser.parse_args()
    connection = RedisConnection(asked.redis)
    ways = {"off": [False], "on": [True], "both": [False, True]}[asked.ahead]
    found: dict[bool, list[tuple[float, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for way in ways:
                own = [
                    f"runs_folder={folder}",
                    f"name=credits-{uuid.uuid4().hex[:8]}",
                    "learner.steps=9999",
                    "learner.groups_per_step=32",
                    f"learner.max_lag={asked.max_lag}",
                ]
                config = load(ROOT / "examples/addition/addition.toml", own)
                found[way].append(measured(config, connection, asked.steps, ahead=way))
    for way, rows in found.items():
        empty, rate = (statistics.median(column) for column in zip(*rows, strict=True))
        each = ", ".join(f"{share:.2f}" for share, _ in rows)
        print(f"ahead {'on ' if way else 'off'}  engine empty {empty:.2f} ({each})  steps/s {rate:.2f}")


if __name__ == "__main__":
    main()
