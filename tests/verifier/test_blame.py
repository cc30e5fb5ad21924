from verifier.blame import Blame, Deadlines, Death, blame
from verifier.pipe import Progress

DEADLINES = Deadlines(item_s=5.0, load_s=60.0)


def death(*, index: int = 3, since_s: float = 100.0, loading: bool = False, chunk: int = 1, **facts: object) -> Death:
    given = {"chunk": 1, "received": 2, "killed_s": None, "ending": "exit code 7"} | facts
    return Death(progress=Progress(chunk, index, since_s, loading), **given)  # type: ignore[arg-type]


def test_a_crash_is_the_error_of_the_response_it_happened_at() -> None:
    assert blame(death(), DEADLINES) == Blame(
        3, "error", "the grader process ended at this response (exit code 7)", whole_grader=False
    )


def test_a_kill_after_the_deadline_is_a_timeout() -> None:
    found = blame(death(killed_s=105.1), DEADLINES)
    assert found is not None
    assert (found.index, found.verdict) == (3, "timeout")


def test_nobody_is_blamed_for_a_kill_that_came_when_the_slow_response_was_already_done() -> None:
    assert blame(death(killed_s=105.1, since_s=105.0), DEADLINES) is None


def test_nobody_is_blamed_when_the_process_had_not_begun_or_was_between_two_responses() -> None:
    assert blame(death(chunk=0), DEADLINES) is None
    assert blame(death(index=1), DEADLINES) is None


def test_a_grader_that_cannot_be_imported_fails_all_its_responses() -> None:
    crashed = blame(death(loading=True), DEADLINES)
    stuck = blame(death(loading=True, killed_s=161.0), DEADLINES)
    assert crashed is not None
    assert stuck is not None
    assert crashed.whole_grader
    assert stuck.whole_grader
    assert {crashed.verdict, stuck.verdict} == {"error"}
    assert blame(death(loading=True, killed_s=130.0), DEADLINES) is None
