"""How often each side asks Redis: exact numbers, because what is asked once more for each group is felt at every size.

A round trip is one exchange with the server, whatever it holds. Scripts that the server does not know yet are sent before.
"""

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from learner.intake.collector import Collector, Sampled
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.ledger import Ledger
from learner.run_state import RunState
from rollout.claims import Claims, RolloutStreams
from services.streams.names import DEAD, EVALUATION_PROMPTS, PROMPTS, SCORED, TRAJECTORIES
from services.streams.redis_connection import Argument, RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.trajectory import Group
from tests.learner.small_run import PROBLEMS, Replicas, small_config, token_ids
from tests.learner.tiny import scored_group
from tests.rollout.test_loop import prompt
from tests.verifier.running import running
from tests.verifier.worker.test_loop import group
from verifier.worker.loop import VerifierStreams

GROUPS = 32


class Counted(RedisConnection):
    """Notes each round trip: the names of its commands, how many arguments they have, and whether anything came back."""

    def __init__(self, url: str) -> None:
        super().__init__(url, deadline_s=10.0)
        self.trips: list[tuple[str, int, bool]] = []

    def execute_many(self, commands: Sequence[Sequence[Argument]], *, block_s: float | None = None) -> list[Any]:
        answers = super().execute_many(commands, block_s=block_s)
        name, arguments = " ".join(str(command[0]) for command in commands), sum(map(len, commands))
        self.trips.append((name, arguments, any(answers)))
        return answers

    def transaction(
        self, commands: Sequence[Sequence[Argument]], lua: str, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> list[Any]:
        self.trips.append(("MULTI", sum(map(len, commands)) + len(args), True))
        return super().transaction(commands, lua, keys, args)

    def taken(self) -> list[str]:
        """The names since the last call."""
        names = [name for name, _, _ in self.trips]
        self.trips.clear()
        return names


@pytest.fixture
def counted(redis_url: str) -> Iterator[Counted]:
    connection = Counted(redis_url)
    yield connection
    connection.close()


def stream(connection: RedisConnection, run: str, name: str, consumer: str = "r") -> RedisStream:
    return RedisStream(connection, run, name, consumer, 60.0)


def test_a_replica_claims_and_hands_over_a_whole_engine_step_in_three_round_trips(
    counted: Counted, redis_connection: RedisConnection
) -> None:
    run = f"counts-{uuid.uuid4().hex[:8]}"
    evaluation = stream(redis_connection, run, EVALUATION_PROMPTS)  # looked for ten times a second, and not counted
    ends = [stream(counted, run, name) for name in (PROMPTS, TRAJECTORIES, DEAD)]
    claims = Claims(RolloutStreams(evaluation, *ends), max_deliveries=3)
    log = RedisIssueLog(redis_connection, stream(redis_connection, run, PROMPTS, "learner"))

    async def step(numbers: range) -> None:
        for number in numbers:
            log.issue(number, encode(prompt(number)))
        counted.taken()
        claimed = await claims.take(GROUPS + 1, idle=False)
        assert len(claimed) == len(numbers)
        for one in claimed:
            claims.hand_over(one, Group(prompt=one.prompt, trajectories=(), replica_id="r"))

    async def scenario() -> list[str]:
        handing_over = asyncio.create_task(claims.run())
        await step(range(1))  # the server learns the scripts
        while ends[1].depth().waiting < 1:
            await asyncio.sleep(0.005)
        await step(range(1, GROUPS + 1))
        claims.close()
        await handing_over
        return counted.taken()

    # Lent out before? New ones? And the results, all at once.
    assert asyncio.run(scenario()) == ["EVALSHA", "XREADGROUP", "EVALSHA"]


def test_a_verifier_claims_and_hands_over_a_batch_in_two_round_trips_that_carry_groups(
    counted: Counted, redis_connection: RedisConnection
) -> None:
    run = f"counts-{uuid.uuid4().hex[:8]}"
    trajectories, to_learner, dead = (stream(counted, run, name) for name in (TRAJECTORIES, SCORED, DEAD))
    log = RedisIssueLog(redis_connection, stream(redis_connection, run, TRAJECTORIES, "rollout"))
    scored = stream(redis_connection, run, SCORED, "learner")

    def feed(numbers: range) -> None:
        for number in numbers:
            log.issue(number, encode(group(number, "right", "wrong")))

    feed(range(1))  # the server learns the scripts
    streams = VerifierStreams(trajectories, to_learner, dead, max_deliveries=3, renew_every_s=60.0)
    with running(streams):
        wait_for(scored, 1)
    feed(range(1, GROUPS + 1))
    counted.trips.clear()
    with running(streams):
        wait_for(scored, GROUPS + 1)
    # Looks that find nothing come every half second at most, however many groups there are.
    carrying = [(name, arguments) for name, arguments, found in counted.trips if found]
    assert [name for name, _ in carrying] == ["XREADGROUP", "EVALSHA"]
    assert carrying[1][1] == 5 + 2 * GROUPS  # a script with two keys, and for each group its entry and its payload


def wait_for(scored: RedisStream, count: int) -> None:
    end_s = time.monotonic() + 20
    while len(scored.peek(count)) < count:
        assert time.monotonic() < end_s, "the groups were not scored"
        time.sleep(0.005)


def test_the_learner_asks_once_for_all_prompts_and_twice_for_each_look(
    counted: Counted, redis_connection: RedisConnection, tmp_path: Path
) -> None:
    config = small_config(tmp_path, "learner.groups_per_step=16", "learner.checkpoint.every_steps=99")
    run = f"counts-{uuid.uuid4().hex[:8]}"
    ends = {name: stream(counted, run, name, "learner") for name in (PROMPTS, TRAJECTORIES, SCORED, DEAD)}
    state, ledger, replicas = RunState.begin(config.learner), Ledger(), Replicas()
    replicas.holds = 0
    log = RedisIssueLog(counted, ends[PROMPTS])
    collector = Collector(ends[SCORED], ends[DEAD], ledger, Sampled())
    intake = Intake(
        config,
        state=state,
        ledger=ledger,
        issuer=PromptIssuer(config, [PromptSource(PROBLEMS, token_ids)], log),
        collector=collector,
        replicas=replicas,
        streams=list(ends.values()),
    )
    log.issue(0, encode(scored_group(0, rewards=[1.0, 0.0]).group.prompt))  # the server learns the script
    collector.look(0.0)
    counted.taken()
    intake.issue()
    assert state.issued == GROUPS  # (max_lag + 1) x groups_per_step
    # Does the server still count as we do? Then all prompts with their count.
    assert counted.taken() == ["GET", "EVALSHA"]
    back = RedisIssueLog(redis_connection, stream(redis_connection, run, SCORED, "verifier"))
    for number, payload in enumerate(ends[PROMPTS].peek(GROUPS)):
        sent = decode(payload, Prompt)
        back.issue(number, encode(scored_group(sent.sequence_number, rewards=[1.0, 0.0])))
    counted.taken()
    collector.look(0.0)
    # Scored groups: lent out before? new ones? The dead: the same.
    assert counted.taken() == ["EVALSHA", "XREADGROUP", "EVALSHA", "XREADGROUP"]
    collector.look(0.01)
    assert counted.taken() == ["EVALSHA", "XREADGROUP", "EVALSHA", "XREADGROUP"], "a look that waits asks no oftener"
    assert collector.claims_held == GROUPS


def test_a_claim_says_nothing_of_what_is_held_already(counted: Counted, redis_connection: RedisConnection) -> None:
    """A learner holds thousands of groups until a checkpoint: naming them made each claim cost the server milliseconds."""
    run = f"counts-{uuid.uuid4().hex[:8]}"
    held = stream(counted, run, SCORED, "learner")
    log = RedisIssueLog(redis_connection, stream(redis_connection, run, SCORED, "verifier"))
    for number in range(500):
        log.issue(number, b"a group")
    held.claim(1, 0.0)
    counted.trips.clear()
    held.claim(1, 0.0)
    (_, with_one, _), _ = counted.trips
    held.claim(498, 0.0)
    counted.trips.clear()
    assert held.claim(1, 0.0) == []
    (_, with_many, _), _ = counted.trips
    assert with_many == with_one
