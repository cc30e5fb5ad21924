import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from services.errors import ServiceFailed
from services.wire.score import Score
from tests.verifier.bad_graders import REGISTRY
from verifier.pipe import Task
from verifier.pool import GraderPool


def odd(*responses: str) -> list[Task]:
    return [Task("odd", response, "right", {}) for response in responses]


def with_pool(
    work: Callable[[GraderPool], Awaitable[None]], *, processes: int = 1, item_deadline_s: float = 0.5
) -> None:
    async def main() -> None:
        async with GraderPool(processes, item_deadline_s, REGISTRY) as pool:
            await work(pool)
            assert pool.queued_items == 0

    asyncio.run(asyncio.wait_for(main(), 60))


def scored(tasks: Sequence[Task], **settings: float) -> list[Score]:
    found: list[Score] = []

    async def work(pool: GraderPool) -> None:
        found.extend(await pool.score(tasks))

    with_pool(work, **settings)  # type: ignore[arg-type]
    return found


def verdicts(scores: Sequence[Score]) -> list[str]:
    # Promise of the whole verifier: a number with a verdict, and none without.
    assert all((score.reward is None) == (score.verdict in ("error", "timeout")) for score in scores)
    assert all(score.reward == (score.verdict == "correct") for score in scores if score.reward is not None)
    return [score.verdict for score in scores]


def test_scores_come_in_the_order_of_the_tasks_whoever_graded_them() -> None:
    responses = [f"{number}" if number % 3 else "right" for number in range(1000)]
    scores = scored(odd(*responses), processes=2)
    assert verdicts(scores) == ["incorrect" if number % 3 else "correct" for number in range(1000)]


def test_a_loop_in_c_costs_one_timeout_and_the_others_their_verdicts_stay() -> None:
    start_s = time.monotonic()
    scores = scored(odd(*["right"] * 20, "spin", *["right"] * 20, "wrong"))
    assert verdicts(scores) == ["correct"] * 20 + ["timeout"] + ["correct"] * 20 + ["incorrect"]
    assert scores[20].elapsed_s == pytest.approx(0.5, abs=0.3)
    assert time.monotonic() - start_s < 10


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        ("exit", "exit code 7"),
        ("segfault", "signal SIGSEGV"),
        ("leave", "exit code 3"),
        ("raise", "RuntimeError: the grader has a bug"),
        ("fault", "the reference is wrong"),
        ("memory", "MemoryError"),
    ],
)
def test_whatever_a_grader_does_is_an_error_of_one_response_with_its_cause(response: str, detail: str) -> None:
    scores = scored(odd("right", response, "right", "wrong", response))
    assert verdicts(scores) == ["correct", "error", "correct", "incorrect", "error"]
    assert detail in scores[1].detail


def test_deaths_in_a_row_settle_one_response_each() -> None:
    scores = scored(odd("exit", "spin", "exit", "right", "spin"), processes=2)
    assert verdicts(scores) == ["error", "timeout", "error", "correct", "timeout"]


def test_a_stuck_process_does_not_hold_up_another_batch() -> None:
    async def work(pool: GraderPool) -> None:
        stuck = asyncio.create_task(pool.score(odd("spin")))
        await asyncio.sleep(0.1)
        start_s = time.monotonic()
        assert verdicts(await pool.score(odd("right"))) == ["correct"]
        assert time.monotonic() - start_s < 1.0
        assert verdicts(await stuck) == ["timeout"]

    with_pool(work, processes=2, item_deadline_s=3.0)


def test_slow_responses_within_the_deadline_are_scored_however_many() -> None:
    # Together far over the deadline of one; finished ones are not graded again when the last is killed.
    scores = scored(odd(*["sleep 0.2"] * 5, "spin"))
    assert verdicts(scores) == ["incorrect"] * 5 + ["timeout"]


def test_a_grader_that_cannot_be_imported_is_an_error_for_its_own_responses_only() -> None:
    tasks = [Task(grader, "12", "12", {}) for grader in ("missing", "exact", "fatal_import", "exact", "fatal_import")]
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
            await asyncio.wait_for(pool.score(odd("sleep 0.3", "right")), 0.1)
        assert verdicts(await pool.score(odd("right"))) == ["correct"]

    with_pool(work)


def test_math_and_exact_share_a_process() -> None:
    tasks = [
        Task("math", "\\boxed{\\frac{1}{2}}", "0.5", {}),
        Task("exact", "12", "12", {}),
        Task("math", "1", "?", {}),
    ]
    assert verdicts(scored(tasks, item_deadline_s=5.0)) == ["correct", "correct", "error"]


def test_an_expression_that_would_take_for_ever_is_a_timeout() -> None:
    tasks = [Task("math", "\\boxed{12}", "12", {}), Task("math", "\\boxed{9^{9^{9^{9}}}}", "12", {})]
    assert verdicts(scored(tasks, item_deadline_s=1.0))[0] == "correct"
    assert verdicts(scored(tasks, item_deadline_s=1.0))[1] in ("timeout", "error")


def test_large_responses_and_many_results_pass_the_pipe() -> None:
    scores = scored([Task("exact", "x" * 3_000_000, "x", {})] * 3 + [Task("exact", "x", "x", {})])
    assert verdicts(scores) == ["incorrect"] * 3 + ["correct"]


def test_a_pool_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServiceFailed, match="did not come up"):
        scored(odd("right"))


def test_no_process_outlives_a_parent_that_is_killed() -> None:
    program = """
import asyncio
from tests.verifier.bad_graders import REGISTRY
from verifier.pipe import Task
from verifier.pool import GraderPool

async def main():
    async with GraderPool(2, 60.0, REGISTRY) as pool:
        stuck = asyncio.create_task(pool.score([Task("odd", "spin", "", {})]))
        await asyncio.sleep(0.5)
        print(*(process._child.pid for process in pool._running), flush=True)
        await stuck

asyncio.run(main())
"""
    root = Path(__file__).parents[2]
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
