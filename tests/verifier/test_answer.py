"""The answer of a response, and that every grader is given the answer and never the thought."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.graders import OURS
from verifier.answer import LEFT_OPEN, OnAnswer, answer_of
from verifier.grader import Grader, Judgment, ScoringFault, build_grader, load_grader
from verifier.graders.instructions.grader import Instructions
from verifier.network.endpoints import Endpoints
from verifier.network.grader import NetworkGrader

MARKS = st.sampled_from(["<think>", "</think>", "a", " ", "\n"])


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("42", "42"),
        ("<think>40 + 2</think>\n\n42", "42"),
        ("  \n<think>40 + 2</think>42\n", "42\n"),
        ("40 + 2</think>42", "42"),  # the prompt had opened the thought
        ("<think>a</think>41<think>b</think>42", "42"),
        ("<think>", ""),
        ("\n<think>40 + 2", ""),
        ("<think>a</think>\n<think>b", ""),
        ("<think>a</think>", ""),
        ("<think></think>42", "42"),
        ("The tag <think> opens a thought.", "The tag <think> opens a thought."),
        ("<thinking>a</thinking>42", "<thinking>a</thinking>42"),
        ("", ""),
    ],
)
def test_the_answer_is_what_follows_the_last_closing_tag(response: str, answer: str) -> None:
    assert answer_of(response).text == answer


@pytest.mark.parametrize(
    ("thought", "response", "answer"),
    [
        (("[THINK]", "[/THINK]"), "[THINK]a[/THINK]42", "42"),
        (("[THINK]", "[/THINK]"), "<think>a</think>42", "<think>a</think>42"),
        (("\u25c1think\u25b7", "\u25c1/think\u25b7"), "\u25c1think\u25b7a\u25c1/think\u25b7 42", "42"),
        (None, "<think>a</think>42", "<think>a</think>42"),
        (None, "<think>a", "<think>a"),
    ],
)
def test_the_tags_are_an_option(thought: tuple[str, str] | None, response: str, answer: str) -> None:
    assert answer_of(response, thought).text == answer


@given(st.lists(MARKS).map("".join))
def test_the_answer_of_an_answer_is_itself(response: str) -> None:
    answer = answer_of(response).text
    assert answer_of(answer).text == answer
    assert response.endswith(answer)
    assert "</think>" not in answer


CASES: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "choice": ("C", "C", "A", {}),
    "exact": ("4", "4", "5", {}),
    "instructions": ([{"type": "keywords:existence", "keywords": ["cats"]}], "Cats.", "Dogs.", {}),
    "json": ({"value": [1]}, "[1]", "[2]", {}),
    "math": ("4", "\\boxed{4}", "\\boxed{5}", {}),
    "number": ("4", "It is 4.", "It is 5.", {}),
    "regex": ("[a-c]+", "abc", "xyz", {}),
}
"""Grader -> a reference, a right answer, a wrong one, and options."""


@pytest.mark.parametrize("name", CASES)
def test_a_grader_judges_the_answer_and_not_the_thought(name: str) -> None:
    reference, right, wrong, options = CASES[name]
    grader = build_grader(load_grader(OURS[name]), options)
    assert isinstance(grader, Grader)
    assert grader.score(f"<think>{wrong}</think>\n\n{right}", reference).correct
    assert not grader.score(f"<think>{right}</think>\n\n{wrong}", reference).correct
    assert grader.score(f"{wrong}</think>{right}", reference).correct
    unfinished = grader.score(f"<think>{right}", reference)
    assert not unfinished.correct
    assert unfinished.detail.startswith(LEFT_OPEN)


def test_every_grader_that_judges_an_answer_has_the_option() -> None:
    found = {name: load_grader(location) for name, location in OURS.items()}
    assert {name for name, one in found.items() if not issubclass(one, OnAnswer)} == {"combine"}


class Mine(Grader, frozen=True):
    """One of a user's own, which knows nothing of thoughts."""

    def check(self, reference: Any) -> None:
        pass

    def score(self, response: str, reference: Any) -> Judgment:
        return Judgment(response == reference, response)


class MineAsWell(Mine, frozen=True):
    def score(self, response: str, reference: Any) -> Judgment:
        return super().score(response.upper(), reference)


class Asking(NetworkGrader, frozen=True):
    def check(self, reference: Any) -> None:
        pass

    async def score(self, response: str, reference: Any, endpoints: Endpoints) -> Judgment:
        return Judgment(response == reference, "asked")


@pytest.mark.parametrize("grader", [Mine(), MineAsWell()])
def test_a_grader_of_the_users_own_gets_the_answer_alone(grader: Grader) -> None:
    assert grader.score("<think>B</think>\nA", "A").correct
    assert grader.score("<think>A", "").detail == LEFT_OPEN
    marked = build_grader(type(grader), {"thought": ["(", ")"]})
    assert marked.score("(B) A", "A").correct


def test_a_grader_that_asks_a_service_gets_the_answer_alone() -> None:
    def judged(response: str) -> Judgment:
        return asyncio.run(Asking().score(response, "A", Endpoints({})))

    assert judged("<think>B</think>\nA").correct
    assert judged("<think>A") == Judgment(False, f"{LEFT_OPEN}; asked")


def test_all_of_the_response_is_graded_when_the_option_says_so() -> None:
    told = [{"type": "punctuation:no_comma"}]
    response = "<think>Well, yes.</think>No commas."
    assert Instructions().score(response, told).correct
    assert not build_grader(Instructions, {"thought": None}).score(response, told).correct


@pytest.mark.parametrize("thought", [["<think>"], "<think>", ["", "</think>"], ["<think>", ""]])
def test_tags_that_are_none_are_refused(thought: object) -> None:
    with pytest.raises(ScoringFault, match="options"):
        build_grader(Instructions, {"thought": thought})
