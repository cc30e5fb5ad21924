import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.config.verifier import GraderLimits, VerifierConfig
from services.errors import ServiceFailed
from services.wire.verdict import Score
from tests.verifier.bad_graders import REGISTRY
from verifier.contract import ScoreItem
from verifier.pool.pool import GraderPool


def odd(*responses: str) -> list[ScoreItem]:
    return [ScoreItem("a", "odd", response, "right", {}) for response in responses]


def with_pool(
    work: Callable[[GraderPool], Awaitable[None]], *, processes: int = 1, item_deadline_s: float = 0.5, **settings: Any
) -> None:
    given = VerifierConfig(processes=processes, item_deadline_s=item_deadline_s, **settings)

    async def main() -> None:
        async with GraderPool(given, REGISTRY) as pool:
            await work(pool)
            while pool.queued_items:  # of callers who gave up
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 60))


def scored(tasks: Sequence[ScoreItem], **settings: Any) -> list[Score]:
    found: list[Score] = []

    async def work(pool: GraderPool) -> None:
        found.extend(await pool.score(tasks))

    with_pool(work, **settings)
    return found


def verdicts(scores: Sequence[Score]) -> list[str]:
    # Promise of the whole verifier: a number with a verdict, and none without.
    assert all((score.reward is None) == (score.verdict in ("error", "timeout")) for score in scores)
    assert all(score.reward == (score.verdict == "correct") for score in scores if score.reward is not None)
    return [score.verdict for score in scores]


def test_scores_come_in_the_order_of_the_items_from_any_process() -> None:
    responses = [f"{number}" if number % 3 else "right" for number in range(1000)]
    scores = scored(odd(*responses), processes=2)
    assert verdicts(scores) == ["incorrect" if number % 3 else "correct" for number in range(1000)]


def test_a_loop_in_c_costs_its_own_deadline_and_the_others_nothing() -> None:
    start_s = time.monotonic()
    scores = scored(odd(*["right"] * 20, "spin", *["right"] * 20, "wrong"))
    assert verdicts(scores) == ["correct"] * 20 + ["incorrect"] + ["correct"] * 20 + ["incorrect"]
    assert "no verdict within 0.5 s" in scores[20].detail
    assert "its reference alone is fine" in scores[20].detail
    assert scores[20].elapsed_s == pytest.approx(0.5, abs=0.3)
    assert time.monotonic() - start_s < 10


@pytest.mark.parametrize(
    ("response", "verdict", "detail"),
    [
        ("exit", "incorrect", "exit code 7"),
        ("segfault", "incorrect", "signal SIGSEGV"),
        ("leave", "incorrect", "exit code 3"),
        ("memory", "incorrect", "more memory than a grader process may use"),
        ("raise", "error", "RuntimeError: the grader has a bug"),
        ("fault", "error", "the reference is wrong"),
        ("nan", "error", "gave the reward nan"),
        ("sleep 60", "timeout", "of which 0.00 s computing"),
    ],
)
def test_each_thing_that_can_happen_at_a_response_is_its_own_verdict_with_its_cause(
    response: str, verdict: str, detail: str
) -> None:
    scores = scored(odd("right", response, "right", "wrong", response))
    assert verdicts(scores) == ["correct", verdict, "correct", "incorrect", verdict]
    assert detail in scores[1].detail


def test_a_response_that_was_perhaps_only_starved_gets_a_second_look(tmp_path: Path) -> None:
    """The machine is slow once: the response must not pay for it."""
    looks = tmp_path / "looks"
    response = f"stall {looks}"
    scores = scored([ScoreItem("a", "odd", response, response, {})], item_deadline_s=1.0)
    assert verdicts(scores) == ["correct"]
    assert looks.read_text() == "xx"


def test_an_end_that_is_unclear_twice_is_blamed_on_the_response() -> None:
    scores = scored(odd("stall", "right"), item_deadline_s=1.0)
    assert verdicts(scores) == ["incorrect", "correct"]
    assert "of which 0.1" in scores[0].detail


@pytest.mark.parametrize("reference", ["spin", "exit", "segfault", "memory"])
def test_a_reference_that_brings_the_grader_down_is_an_error_and_no_response_pays_for_it(reference: str) -> None:
    scores = scored([ScoreItem("a", "odd", reference, reference, {}), *odd("right")])
    assert verdicts(scores) == ["error", "correct"]
    assert "its reference alone" in scores[0].detail


def test_a_reference_is_checked_once_however_many_responses_are_bombs() -> None:
    start_s = time.monotonic()
    scores = scored(odd(*["spin"] * 8), processes=2, item_deadline_s=0.3)
    assert verdicts(scores) == ["incorrect"] * 8
    assert time.monotonic() - start_s < 15


def test_deaths_in_a_row_settle_one_response_each() -> None:
    scores = scored(odd("exit", "spin", "exit", "right", "spin"), processes=2)
    assert verdicts(scores) == ["incorrect", "incorrect", "incorrect", "correct", "incorrect"]


def test_a_stuck_process_does_not_hold_up_the_others_even_if_it_is_the_only_one() -> None:
    async def work(pool: GraderPool) -> None:
        stuck = asyncio.create_task(pool.score(odd("spin", *["right"] * 5)))
        await asyncio.sleep(0.1)
        start_s = time.monotonic()
        assert verdicts(await pool.score(odd("right"))) == ["correct"]
        assert time.monotonic() - start_s < 2.0
        assert verdicts(await stuck) == ["incorrect"] + ["correct"] * 5

    with_pool(work, processes=1, item_deadline_s=5.0)


def test_the_number_of_slow_processes_is_bounded() -> None:
    async def work(pool: GraderPool) -> None:
        stuck = asyncio.create_task(pool.score(odd(*["sleep 3"] * 6)))
        for _ in range(20):
            await asyncio.sleep(0.05)
            assert len(pool.slow) <= 2
            assert len(pool.working) <= 1
        assert verdicts(await stuck) == ["incorrect"] * 6

    with_pool(work, item_deadline_s=10.0, slow_processes=2)


def test_callers_are_served_in_turn() -> None:
    async def work(pool: GraderPool) -> None:
        flood = asyncio.create_task(pool.score(odd(*["sleep 0.02"] * 200), "flood"))
        await asyncio.sleep(0.2)
        assert verdicts(await pool.score(odd(*["right"] * 5), "small")) == ["correct"] * 5
        assert not flood.done()
        assert verdicts(await flood) == ["incorrect"] * 200

    with_pool(work)


def test_no_more_processes_than_allowed_work_for_one_grader() -> None:
    async def work(pool: GraderPool) -> None:
        slow = asyncio.create_task(pool.score(odd(*["sleep 0.2"] * 6)))
        exact = await pool.score([ScoreItem("a", "exact", "12", "12", {})] * 50)
        assert verdicts(exact) == ["correct"] * 50
        assert not slow.done()
        assert len({score.detail for score in await slow}) == 1  # one process did them all

    limits = {"odd": GraderLimits(processes=1)}
    with_pool(work, processes=2, item_deadline_s=10.0, limits=limits, slow_processes=0)


def test_a_grader_has_a_deadline_of_its_own() -> None:
    tasks = odd("sleep 0.7")
    assert verdicts(scored(tasks, item_deadline_s=0.3)) == ["timeout"]
    assert verdicts(scored(tasks, item_deadline_s=0.3, limits={"odd": GraderLimits(deadline_s=5.0)})) == ["incorrect"]


def test_a_process_is_replaced_after_a_number_of_responses() -> None:
    async def work(pool: GraderPool) -> None:
        pids = {(await pool.score(odd("right")))[0].detail for _ in range(9)}
        assert len(pids) >= 3

    with_pool(work, recycle_items=3)


def test_slow_responses_within_the_deadline_are_scored_however_many() -> None:
    # Together far over the deadline of one; finished ones are not graded again when the last is killed.
    scores = scored(odd(*["sleep 0.2"] * 5, "spin"))
    assert verdicts(scores) == ["incorrect"] * 6


def test_a_grader_that_cannot_be_imported_is_an_error_for_its_own_responses_only() -> None:
    tasks = [
        ScoreItem("a", grader, "12", "12", {})
        for grader in ("missing", "exact", "fatal_import", "exact", "fatal_import")
    ]
    scores = scored(tasks)
    assert verdicts(scores) == ["error", "correct", "error", "correct", "error"]
    assert "grader missing cannot be loaded: ModuleNotFoundError" in scores[0].detail
    assert "while it imported the grader (exit code 9)" in scores[2].detail


def test_a_process_killed_from_outside_is_replaced_and_nothing_is_lost() -> None:
    async def work(pool: GraderPool) -> None:
        for _ in range(3):
            (score,) = await pool.score(odd("right"))
            os.kill(int(score.detail.split()[1]), signal.SIGKILL)
        assert verdicts(await pool.score(odd(*["right"] * 10))) == ["correct"] * 10

    with_pool(work)


def test_a_caller_who_gives_up_does_not_disturb_the_others() -> None:
    async def work(pool: GraderPool) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.score(odd(*["sleep 0.1"] * 1000)), 0.3)
        start_s = time.monotonic()
        assert verdicts(await pool.score(odd("right"))) == ["correct"]
        assert time.monotonic() - start_s < 5.0

    with_pool(work)


def test_math_and_exact_share_a_process() -> None:
    tasks = [
        ScoreItem("a", "math", "\\boxed{\\frac{1}{2}}", "0.5", {}),
        ScoreItem("a", "exact", "12", "12", {}),
        ScoreItem("a", "math", "1", "?", {}),
    ]
    assert verdicts(scored(tasks, item_deadline_s=5.0)) == ["correct", "correct", "error"]


def test_an_expression_that_would_take_for_ever_is_incorrect() -> None:
    tasks = [
        ScoreItem("a", "math", "\\boxed{12}", "12", {}),
        ScoreItem("a", "math", "\\boxed{9^{9^{9^{9}}}}", "12", {}),
    ]
    assert verdicts(scored(tasks, item_deadline_s=1.0)) == ["correct", "incorrect"]


def test_large_responses_and_many_results_pass_the_pipe() -> None:
    scores = scored([ScoreItem("a", "exact", "x" * 3_000_000, "x", {})] * 3 + [ScoreItem("a", "exact", "x", "x", {})])
    assert verdicts(scores) == ["incorrect"] * 3 + ["correct"]


def test_a_pool_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServiceFailed, match="no grader process was started"):
        scored(odd("right"))


def test_no_process_outlives_a_parent_that_is_killed() -> None:
    program = """
import asyncio
from services.config.verifier import VerifierConfig
from tests.verifier.bad_graders import REGISTRY
from verifier.contract import ScoreItem
from verifier.pool.pool import GraderPool

async def main():
    settings = VerifierConfig(processes=2, item_deadline_s=60.0)
    async with GraderPool(settings, REGISTRY) as pool:
        stuck = asyncio.create_task(pool.score([ScoreItem("a", "odd", "spin", "", {})]))
        await asyncio.sleep(0.5)
        print(*(process.pid for process in pool.working), flush=True)
        await stuck

asyncio.run(main())
"""
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    give_up_s = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < give_up_s, "grader processes outlived their parent"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_response_judged_just_before_a_bomb_does_not_wait_for_it() -> None:
    async def work(pool: GraderPool) -> None:
        first = asyncio.create_task(pool.score(odd("right")))
        stuck = asyncio.create_task(pool.score(odd("spin")))
        start_s = time.monotonic()
        assert verdicts(await first) == ["correct"]
        assert time.monotonic() - start_s < 3.0
        assert verdicts(await stuck) == ["incorrect"]

    with_pool(work, processes=1, item_deadline_s=5.0)


def test_a_dead_process_leaves_no_open_file() -> None:
    async def work(pool: GraderPool) -> None:
        await pool.score(odd("exit", "right"))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await pool.score(odd("exit", "right"))
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # one that is being replaced

    with_pool(work, processes=1, item_deadline_s=5.0)
