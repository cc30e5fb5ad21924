import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.grader import ScoringFault, build_grader
from verifier.graders.response_format import ResponseFormat

GOOD = "<think>2 + 2 is 4.</think>\n<answer>4</answer>"


@pytest.mark.parametrize(
    ("options", "response", "detail"),
    [
        ({}, GOOD, ""),
        ({}, f"\n {GOOD}\n", ""),
        ({}, "", "<think> occurs 0 times, not once"),
        ({}, "<answer>4</answer>", "<think> occurs 0 times, not once"),
        ({}, "<think>x</think><answer>4", "</answer> occurs 0 times, not once"),
        ({}, "<answer>4</answer><think>x</think>", "<answer> comes before the end of the tag before it"),
        ({}, "<think>x<answer>4</answer></think>", "<answer> comes before the end of the tag before it"),
        ({}, "<think>x<answer>4</think></answer>", "<answer> comes before the end of the tag before it"),
        ({}, "</think>x<think><answer>4</answer>", "</think> comes before <think>"),
        ({}, f"<think>first</think>{GOOD}", "<think> occurs 2 times, not once"),
        ({}, "<think>a<think>b</think></think><answer>4</answer>", "<think> occurs 2 times, not once"),
        ({}, "<think>\u200b</think><answer>4</answer>", "<think> is empty"),
        ({}, "<think>x</think><answer>\u2060\ufeff</answer>", "<answer> is empty"),
        (
            {"min_characters_in": {"answer": 3}},
            "<think>x</think><answer>4\u200b\u200b</answer>",
            "1 characters in <answer>, fewer than 3",
        ),
        ({}, f"{GOOD}<answer>5</answer>", "<answer> occurs 2 times, not once"),
        ({}, "<think> \n</think><answer>4</answer>", "<think> is empty"),
        ({}, "<think>x</think><answer></answer>", "<answer> is empty"),
        ({"empty_tags": True}, "<think></think><answer></answer>", ""),
        ({}, f"So: {GOOD}", "text outside the tags: 'So:'"),
        ({}, f"{GOOD} That is it.", "text outside the tags: 'That is it.'"),
        ({}, "<think>x</think> so <answer>4</answer>", "text outside the tags: 'so'"),
        ({"text_outside": True}, f"So: {GOOD} That is it.", ""),
        ({}, "<Think>x</Think><answer>4</answer>", "<think> occurs 0 times, not once"),
        ({}, "<think >x</think ><answer>4</answer>", "<think> occurs 0 times, not once"),
        ({}, "<think>a < b <i>c</i></think><answer>4</answer>", ""),
        ({"opened_by_prompt": True}, "2 + 2 is 4.</think><answer>4</answer>", ""),
        ({"opened_by_prompt": True}, GOOD, "<think> occurs 2 times, not once"),
        ({"opened_by_prompt": True}, "</think><answer>4</answer>", "<think> is empty"),
        ({"tags": ["plan", "code", "test"]}, "<plan>a</plan><code>b</code><test>c</test>", ""),
        (
            {"tags": ["plan", "code"]},
            "<code>b</code><plan>a</plan>",
            "<code> comes before the end of the tag before it",
        ),
        ({"tags": [], "max_characters": 3}, "four", "4 characters, more than 3"),
        ({"tags": [], "max_characters": 4}, " four ", ""),
        ({"tags": [], "max_characters": 1}, "ü", ""),
        ({"tags": [], "min_characters": 5}, "four", "4 characters, fewer than 5"),
        ({"tags": [], "max_words": 2}, "one two\nthree", "3 words, more than 2"),
        ({"tags": [], "min_words": 3}, "one two\nthree", ""),
        ({"tags": [], "min_words": 4}, "one two\nthree", "3 words, fewer than 4"),
        ({"max_characters_in": {"answer": 2}}, GOOD, ""),
        (
            {"max_characters_in": {"answer": 2}},
            "<think>x</think><answer>444</answer>",
            "3 characters in <answer>, more than 2",
        ),
        ({"min_characters_in": {"think": 20}}, GOOD, "11 characters in <think>, fewer than 20"),
        ({"forbidden": ["As an AI"]}, "<think>As an AI</think><answer>4</answer>", "contains 'As an AI'"),
        ({"forbidden": ["As an AI"]}, "<think>as an ai</think><answer>4</answer>", ""),
        ({"tags": [], "ends_with": "Amen."}, "So be it. Amen.\n", ""),
        ({"tags": [], "ends_with": "Amen."}, "Amen. So be it.", "does not end with 'Amen.'"),
    ],
)
def test_the_form_is_kept_or_the_detail_says_where_not(options: dict[str, Any], response: str, detail: str) -> None:
    scorer = build_grader(ResponseFormat, options)
    for reference in (None, "4", {"anything": 1}):
        scorer.check(reference)
        judgment = scorer.score(response, reference)
        assert (judgment.correct, judgment.detail, judgment.reward) == (not detail, detail, None)


MARKS = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "x", " "])


@given(st.lists(MARKS, max_size=9))
def test_only_one_order_of_marks_is_correct(parts: list[str]) -> None:
    def squeezed(text: str) -> str:
        while "xx" in text:
            text = text.replace("xx", "x")
        return text

    bare = squeezed("".join(parts).replace(" ", ""))
    expected = bare == "<think>x</think><answer>x</answer>"
    assert ResponseFormat().score("".join(parts), None).correct is expected


@given(
    st.text(alphabet="ab <>/\n", min_size=1).filter(str.strip),
    st.text(alphabet="ab <>/\n", min_size=1).filter(str.strip),
)
def test_any_content_without_the_marks_is_accepted(thought: str, answer: str) -> None:
    assert ResponseFormat().score(f"<think>{thought}</think> <answer>{answer}</answer>", None).correct


@pytest.mark.parametrize(
    "flood", ["<think>" * 150_000, "<" * 1_000_000, "<think>" + "</think" * 150_000, "x" * 1_000_000]
)
def test_floods_are_judged_at_once_and_hardly_repeated(flood: str) -> None:
    start = time.thread_time()
    judgment = ResponseFormat(max_words=10).score(flood, None)
    assert not judgment.correct
    assert len(judgment.detail) < 100
    assert time.thread_time() - start < 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tags": ["<think>"]}, "option tags: '<think>' is not the name of a tag; write think for <think>"),
        ({"tags": ["think", "think"]}, "has a name twice; each tag comes once"),
        ({"tags": "think"}, "Expected `array`, got `str`"),
        ({"max_characters_in": {"solution": 5}}, r"name \['solution'\], not in tags"),
        ({"min_words": 5, "max_words": 4}, "at least 5 and at most 4 words cannot both hold"),
        (
            {"min_characters_in": {"think": 5}, "max_characters_in": {"think": 4}},
            "at least 5 and at most 4 think cannot both",
        ),
        ({"max_words": -1}, "Expected `int` >= 0"),
        ({"tags": [], "opened_by_prompt": True}, "opened_by_prompt needs tags"),
        ({"forbidden": [""]}, "an empty text says nothing"),
        ({"ends_with": " "}, "an empty text says nothing"),
        ({"tags": []}, "nothing is asked for, so every response would be correct"),
    ],
)
def test_options_that_ask_for_nothing_or_the_impossible_are_faults(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ScoringFault, match=says):
        build_grader(ResponseFormat, options)
