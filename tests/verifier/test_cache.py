"""Verdicts that are known already: what a key depends on, what is kept, and what the service asks twice."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config.verifier import VerifierConfig
from services.wire.verdict import Score, Verdict
from tests.verifier.bad_graders import REGISTRY
from tests.verifier.running import Running, running
from verifier.cache import MemoryShelf, freeze, key_of, thaw
from verifier.contract import ScoreItem
from verifier.grading import open_grading
from verifier.network.endpoints import Endpoints
from verifier.registry import Entry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARTS = ("math", "1", {"tolerance": 0.1, "percent": "either"}, "0.5", "1/2")


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    return [reordered(inner) for inner in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), JSON)
def test_the_order_of_members_does_not_change_the_key(options: dict[str, Any], reference: Any) -> None:
    one = key_of("math", "1", options, reference, "x")
    assert one == key_of("math", "1", reordered(options), reordered(reference), "x")
    assert len(one) == 16


@pytest.mark.parametrize("place", range(5))
def test_everything_that_a_verdict_depends_on_is_in_the_key(place: int) -> None:
    others: list[Any] = ["number", "2", {"tolerance": 0.2, "percent": "either"}, "0.25", "1/2 "]
    changed: list[Any] = list(PARTS)
    changed[place] = others[place]
    assert key_of(*changed) != key_of(*PARTS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("math", "1", {}, "a", "b"), ("math", "1", {}, "ab", "")),
        (("math", "1", {}, "1", "x"), ("math", "1", {}, 1, "x")),
        (("math", "1", {}, 1, "x"), ("math", "1", {}, True, "x")),
        (("math", "1", {}, 1, "x"), ("math", "1", {}, 1.0, "x")),
        (("math", "1", {}, [1, 2], "x"), ("math", "1", {}, [2, 1], "x")),
        (("math", "1", {}, None, "x"), ("math", "1", {}, {}, "x")),
        (("math", "11", {}, None, "x"), ("math1", "1", {}, None, "x")),
    ],
)
def test_what_differs_as_json_has_another_key(one: Any, other: Any) -> None:
    assert key_of(*one) != key_of(*other)


@given(st.sampled_from(["correct", "incorrect"]), st.floats(allow_nan=False, allow_infinity=False), st.text())
def test_a_verdict_is_the_same_after_it_was_kept(verdict: Verdict, reward: float, detail: str) -> None:
    score = Score(verdict=verdict, reward=reward, detail=detail, elapsed_s=1.5)
    assert thaw(freeze(score)) == Score(verdict=verdict, reward=reward, detail=detail, elapsed_s=0.0)


@given(st.binary(max_size=30))
def test_bytes_that_are_not_a_verdict_are_ignored(value: bytes) -> None:
    found = thaw(value)
    assert found is None or freeze(found) == freeze(thaw(freeze(found)))  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60), st.integers(1, 5))
def test_the_shelf_holds_the_entries_that_were_used_last(steps: list[tuple[bool, int]], most: int) -> None:
    async def run() -> None:
        shelf, used = MemoryShelf(most), list[int]()  # used: oldest first
        for putting, number in steps:
            key = bytes([number])
            if putting:
                await shelf.put_many({key: b"v%d" % number})
            elif (await shelf.get_many([key]))[0] is None:
                assert number not in used[-most:]
                continue
            used = [*(other for other in used if other != number), number][-most:]
        found = await shelf.get_many([bytes([number]) for number in range(10)])
        assert {number for number, value in enumerate(found) if value is not None} == set(used)

    asyncio.run(run())


@pytest.fixture(scope="module")
def verifier() -> Iterator[Running]:
    with running(item_deadline_s=30.0) as one:
        yield one


def item(response: str, reference: Any = "1/2", grader: str = "math", **options: Any) -> dict[str, Any]:
    return {"id": "a", "grader": grader, "response": response, "reference": reference, "options": options}


def lookups(verifier: Running, *items: dict[str, Any]) -> tuple[list[str], int, int]:
    """The verdicts, hits and misses of one request."""

    def count(result: str) -> int:
        page = httpx.get(f"{verifier.url}/metrics").text
        line = f'ratchet_verifier_cache_lookups_total{{result="{result}"}} '
        return next(int(float(row.removeprefix(line))) for row in page.splitlines() if row.startswith(line))

    before = count("hit"), count("miss")
    answer = httpx.post(f"{verifier.url}/v1/score", json={"items": items}, timeout=60).json()
    verdicts = [result["verdict"] for result in answer["results"]]
    return verdicts, count("hit") - before[0], count("miss") - before[1]


def new() -> str:
    return f"\\boxed{{0.5}} {uuid.uuid4()}"


def test_the_second_time_is_a_hit_with_the_same_verdict(verifier: Running) -> None:
    right, wrong = item(new()), item(new(), "3")
    assert lookups(verifier, right, wrong) == (["correct", "incorrect"], 0, 2)
    assert lookups(verifier, wrong, right) == (["incorrect", "correct"], 2, 0)


def test_an_item_twice_in_a_request_is_looked_up_twice_and_right_both_times(verifier: Running) -> None:
    one = item(new())
    assert lookups(verifier, one, one) == (["correct", "correct"], 0, 2)
    assert lookups(verifier, one, one) == (["correct", "correct"], 2, 0)


def test_another_option_reference_or_response_is_a_miss_and_another_order_of_options_a_hit(verifier: Running) -> None:
    response = new()
    lookups(verifier, item(response, unboxed="last", tolerance=0.25))
    assert lookups(verifier, item(response, tolerance=0.25, unboxed="last"))[1:] == (1, 0)
    others = [
        item(response, unboxed="last", tolerance=0.125),
        item(response),
        item(response, "0.5", unboxed="last", tolerance=0.25),
        item(response + " ", unboxed="last", tolerance=0.25),
    ]
    assert lookups(verifier, *others) == (["correct"] * 4, 0, 4)


def test_errors_are_not_kept(verifier: Running) -> None:
    faulty = item(new(), "?")
    for _ in range(2):
        assert lookups(verifier, faulty) == (["error"], 0, 1)


def test_a_grader_that_is_as_quick_as_a_look_up_is_not_looked_up(verifier: Running) -> None:
    for _ in range(2):
        assert lookups(verifier, item("12", "12", "exact")) == (["correct"], 0, 0)


def test_parts_of_a_combination_are_remembered_each(verifier: Running) -> None:
    response = new()
    both = item(response, {"m": "1/2"}, "combine", parts=[{"grader": "math", "reference": "m"}])
    assert lookups(verifier, item(response)) == (["correct"], 0, 1)
    assert lookups(verifier, both) == (["correct"], 1, 0)


class CountingShelf(MemoryShelf):
    def __init__(self) -> None:
        super().__init__(100)
        self.kept = 0

    async def put_many(self, values: Any) -> None:
        self.kept += len(values)
        await super().put_many(values)


def test_a_new_version_of_a_grader_forgets_and_a_verdict_of_another_program_is_ignored() -> None:
    shelf = CountingShelf()

    async def judged(version: str) -> str:
        entries = {"odd": Entry("odd", REGISTRY["odd"], version=version, cached=True)}
        settings = VerifierConfig(processes=1)
        async with Endpoints({}) as endpoints, open_grading(settings, endpoints, shelf, entries) as grading:
            return (await grading.score([ScoreItem("a", "odd", "right", "right")]))[0].verdict

    async def run() -> None:
        for version, kept in (("1", 1), ("1", 1), ("2", 2), ("1", 2)):
            assert await judged(version) == "correct"
            assert shelf.kept == kept
        await shelf.put_many({key_of("odd", "1", {}, "right", "right"): b"of another program"})
        assert await judged("1") == "correct"
        assert shelf.kept == 4

    asyncio.run(run())
