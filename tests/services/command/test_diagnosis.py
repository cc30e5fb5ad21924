"""From a failing run to the sentence that names the cause: ten faults and what an operator reads."""

from typing import Any

import msgspec
import pytest

from services.cause import Cause
from services.command.diagnosis import Facts, reasons
from services.command.scrape import Scrape, parse
from services.run.waiting import Waiting
from services.streams.stream import StreamDepth

HEALTHY = Facts(
    is_running=True,
    redis_memory=(10 * 2**20, 0),
    expected_replicas=2,
    ready={"rollout-0": True, "rollout-1": True},
    steps=[{"step": 4, "skipped": None, "seconds": 1.0, "waited_s": 0.1}],
    step_age_s=1.0,
)
WAITING = Waiting(step=5, usable=0, needed=4, unusable="", outstanding=8, confirmed=True)
REWARDS = msgspec.structs.replace(WAITING, unusable="40 equal rewards (every reward was 0)")


def changed(**change: Any) -> Facts:
    names = HEALTHY.__dataclass_fields__
    return Facts(**{name: getattr(HEALTHY, name) for name in names} | change)


def cause(message: str) -> Cause:
    return Cause(message, "never", True)


def verifier(**values: float) -> Scrape:
    return parse(
        "\n".join(f'ratchet_waiting{{room="verifier",awaiting="{name}"}} {value}' for name, value in values.items())
        + "\n"
    )


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "killed replica": (
        {"said": [("up", "rollout-0 was killed by SIGKILL; starting it again (log: x)")]},
        "rollout-0 was killed by SIGKILL",
    ),
    "cut network": ({"announced": {"rollout-1": None}}, "rollout-1 does not answer on its address"),
    "wrong verifier URL": (
        {
            "announced": {"verifier": verifier(scoring=1)},
            "verifier_url": "http://nowhere:1",
            "said": [("verifier", "the scoring service is away: no route; trying until it is back")],
        },
        "the scoring service does not answer at verifier.url = http://nowhere:1 (the scoring service is away: no route",
    ),
    "poisoned dataset": (
        {"dead_causes": ["trajectories: no verdict: bad reference"] * 3 + ["prompts: too long"]},
        "4 groups died, 3 of them for this: trajectories: no verdict: bad reference",
    ),
    "reward 0 for all": ({"waiting": REWARDS}, "no group can be trained on: 40 equal rewards (every reward was 0)"),
    "full disk": (
        {"left": {"learner": cause("no space is left on the disk")}},
        "learner is not started again: no space",
    ),
    "Redis out of memory": ({"redis_memory": (99, 100)}, "the memory of Redis is full"),
    "NaN loss": (
        {"steps": [{"skipped": None}, {"skipped": "non_finite_loss"}, {"skipped": "non_finite_loss"}]},
        "the last 2 steps changed nothing: non_finite_loss",
    ),
    "unequal weights": (
        {"left": {"learner": cause("rollout-0 does not hold the weights that were sent")}},
        "learner is not started again: rollout-0 does not hold the weights",
    ),
    "slow verifier": (
        {
            "depths": {"prompts": StreamDepth(1, 1), "trajectories": StreamDepth(20, 10)},
            "steps": [{"skipped": None, "seconds": 1.0, "waited_s": 9.0}],
        },
        "grading limits the run: 30 of 32 groups wait to be scored",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_first_sentence_names_the_cause(fault: str) -> None:
    change, said = FAULTS[fault]
    first = reasons(changed(**change))[0]
    assert said in first.what
    assert first.action


def test_a_message_of_several_lines_is_one_sentence_and_the_rest() -> None:
    message = "3 of 9 rows cannot be used:\n  row 1: no answer\n  row 2: too long"
    (reason,) = reasons(changed(left={"learner": cause(message)}))
    assert reason.what == "learner is not started again: 3 of 9 rows cannot be used"
    assert reason.more == "  row 1: no answer\n  row 2: too long"


def test_nothing_is_said_of_a_healthy_run() -> None:
    assert reasons(HEALTHY) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"redis_fault": "refused", "is_running": False}, "the Redis server does not answer: refused"),
        ({"ready": {"rollout-0": True}}, "1 of 2 replicas have no lease"),
        ({"ready": {"rollout-0": True, "rollout-1": False}}, "rollout-1 holds no proven weights"),
        ({"waiting": msgspec.structs.replace(WAITING, confirmed=False), "step_age_s": 500.0}, "have not confirmed"),
        ({"step_age_s": 500.0}, "the last step was 500 s ago"),
        ({"announced": {"verifier": None}}, "the verifier does not answer"),
        ({"said": [("learner", "Redis refused XADD: OOM command; raise maxmemory")]}, "the memory of Redis is full"),
        (
            {"depths": {"prompts": StreamDepth(9, 1)}, "steps": [{"skipped": None, "seconds": 1.0, "waited_s": 9.0}]},
            "sampling limits the run: 10 of 10 groups",
        ),
    ],
)
def test_other_reasons(change: dict[str, Any], said: str) -> None:
    assert said in reasons(changed(**change))[0].what


def test_a_service_that_came_back_is_said_last() -> None:
    said = [("up", "rollout-0 was killed by SIGKILL; starting it again (log: x)")]
    back = reasons(changed(said=said, announced={"rollout-0": verifier()}, step_age_s=500.0))
    assert [reason.what.endswith("it answers again") for reason in back] == [False, True]
    gone = reasons(changed(said=said, announced={"rollout-0": None}))
    assert [reason.what.split(";")[0] for reason in gone] == ["rollout-0 was killed by SIGKILL"]


def test_what_ended_a_service_comes_before_what_is_slow() -> None:
    found = reasons(changed(left={"learner": cause("no space")}, step_age_s=500.0, waiting=REWARDS))
    assert [reason.what.split(" ")[0] for reason in found] == ["learner", "no", "the"]
