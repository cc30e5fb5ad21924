from verifier.pool.blame import Death, Finding, blame
from verifier.pool.protocol import ItemProgress

ITEM_S, LOAD_S = 5.0, 60.0


def found(
    *, index: int = 3, since_s: float = 100.0, loading: bool = False, chunk: int = 1, **facts: object
) -> Finding | None:
    given = {"chunk": 1, "received": 2, "killed_s": None, "killed_cpu_s": 0.0, "ending": "exit code 7"} | facts
    death = Death(progress=ItemProgress(chunk, index, since_s, 40.0, loading), **given)  # type: ignore[arg-type]
    return blame(death, ITEM_S, LOAD_S)


def kind(blamed: Finding | None) -> str:
    assert blamed is not None
    return blamed.kind


def test_a_crash_is_put_down_to_the_response_it_happened_at() -> None:
    assert found() == Finding(3, "crashed", "the grader process ended at this response (exit code 7)")


def test_a_process_killed_from_outside_is_not_a_crash_of_the_response() -> None:
    assert kind(found(ending="signal SIGKILL")) == "killed"


def test_a_kill_after_the_deadline_tells_a_busy_process_from_one_that_was_starved() -> None:
    busy, starved = found(killed_s=105.1, killed_cpu_s=42.6), found(killed_s=105.1, killed_cpu_s=40.1)
    assert (kind(busy), kind(starved)) == ("busy", "starved")
    assert kind(found(killed_s=105.1, killed_cpu_s=41.0)) == "unclear"
    assert "0.10 s computing" in starved.detail  # type: ignore[union-attr]


def test_no_response_is_blamed_for_a_kill_that_came_when_the_slow_response_was_already_done() -> None:
    assert found(killed_s=105.1, since_s=105.0) is None


def test_no_response_is_blamed_when_the_process_had_not_begun_or_was_between_two_responses() -> None:
    assert found(chunk=0) is None
    assert found(index=1) is None


def test_a_grader_that_cannot_be_imported_is_at_fault_itself() -> None:
    assert kind(found(loading=True)) == "loading"
    assert kind(found(loading=True, killed_s=161.0)) == "loading"
    assert found(loading=True, killed_s=130.0) is None
