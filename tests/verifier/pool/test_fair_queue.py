from collections.abc import Mapping

from verifier.pool.fair_queue import FairQueue


def taken(queue: FairQueue[str], most: int = 1) -> list[str] | None:
    return queue.take(lambda _, waiting: min(waiting, most), lambda _: True)


def filled(limits: Mapping[str, int] = {}, **lines: str) -> FairQueue[str]:
    """caller_grader = "jobs", a letter each."""
    queue: FairQueue[str] = FairQueue(limits)
    for name, jobs in lines.items():
        caller, _, grader = name.partition("_")
        queue.put(caller, grader, jobs)
    return queue


def test_a_grader_without_a_limit_is_served_by_as_many_processes_as_there_are_jobs() -> None:
    queue = filled(a_math="12")
    assert [taken(queue), taken(queue), taken(queue)] == [["1"], ["2"], None]


def test_a_job_that_comes_while_another_of_its_grader_is_out_is_served_at_once() -> None:
    queue = filled(a_math="1")
    assert taken(queue) == ["1"]
    queue.put("a", "math", "2")
    assert taken(queue) == ["2"]


def test_a_limit_holds_until_a_process_is_free_again_and_the_others_go_on() -> None:
    queue = filled({"math": 1}, a_math="12", a_exact="x")
    assert [taken(queue), taken(queue), taken(queue)] == [["1"], ["x"], None]
    queue.done("math")
    assert taken(queue) == ["2"]


def test_callers_are_served_in_turn_even_if_one_sends_far_more() -> None:
    queue = filled(flood_math="123456", other_math="xy")
    assert [taken(queue, 2) for _ in range(4)] == [["1", "2"], ["x", "y"], ["3", "4"], ["5", "6"]]


def test_what_was_here_before_comes_first_again() -> None:
    queue = filled(a_math="123")
    assert taken(queue, 2) == ["1", "2"]
    queue.put("a", "math", ["1", "2"], first=True)
    assert taken(queue, 9) == ["1", "2", "3"]
    assert len(queue) == 0
