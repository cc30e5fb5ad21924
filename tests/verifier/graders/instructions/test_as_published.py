"""Edge cases of IFEval's rules, held against its authors' program (google-research, instruction_following_eval, read 2026-11).

What that program says of each response was read off its rules, not run: it needs data of nltk and langdetect.
"""

from typing import Any

import pytest

from verifier.graders.instructions.grader import Instructions
from verifier.graders.instructions.layout import Title
from verifier.graders.strict_json import read_json

SAME: list[tuple[str, dict[str, Any], str, bool]] = [
    # type, parameters, response, whether it holds: there and here
    ("combination:two_responses", {}, "one ****** two", True),
    ("combination:two_responses", {}, "****** one ****** two", True),  # empty at the ends: not a part
    ("combination:two_responses", {}, "one ****** two ******", True),
    ("combination:two_responses", {}, "one ****** ****** two", False),  # empty in the middle
    ("combination:two_responses", {}, "one ****** one", False),
    ("combination:two_responses", {}, "one ****** two ****** three", False),
    ("combination:two_responses", {}, "******", False),
    ("detectable_format:title", {}, "<<poem of joy>>\ntext", True),
    ("detectable_format:title", {}, "<<x > y>>", True),  # anything but a line's end within
    ("detectable_format:title", {}, "<<from <b> to <c>>> and on", True),
    ("detectable_format:title", {}, "<<>>", False),
    ("detectable_format:title", {}, "<<<>>>", False),
    ("detectable_format:title", {}, "<<two\nlines>>", False),
    ("detectable_format:title", {}, ">>backwards<<", False),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', True),
    ("detectable_format:json_format", {}, "```JSON\n[1, 2]```", True),
    ("detectable_format:json_format", {}, '```\n{"a": "```py```"}\n```', True),  # fences within a text
    ("detectable_format:json_format", {}, 'Here: {"a": 1}', False),
    ("detectable_format:json_format", {}, '{"a": 1} {"b": 2}', False),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```\n```json\n{"b": 1}\n```', False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one *** two", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\none\n***\ntwo\n***", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\n***\ntwo", False),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "It"},
        "One.\n\n\"It's late.",
        True,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "its"},
        "One.\n\nIt's late.",
        False,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 1, "first_word": "one"},
        "One.\n\nTwo.",
        False,
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "text\nP. S. more", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "text\np.p.s. more", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "text\nP. P. S: more", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "text\nPS more", False),
    ("keywords:existence", {"keywords": ["sneaker"]}, "SNEAKERS", True),
    ("keywords:frequency", {"keyword": "an", "frequency": 3, "relation": "at least"}, "banana an", True),
    ("keywords:frequency", {"keyword": "an", "frequency": 3, "relation": "less than"}, "banana an", False),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "category", True),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "a cat-like thing", False),
    ("keywords:letter_frequency", {"letter": "A", "let_frequency": 3, "let_relation": "at least"}, "aAb a", True),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": "less than"}, "# x", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n  - two\n**bold**", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "* one\n* two", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "**", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a\nb*", False),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [see [1]]", True),
    ("startend:end_checker", {"end_phrase": "Any other questions?"}, 'Yes. "ANY OTHER QUESTIONS?"', True),
    ("startend:end_checker", {"end_phrase": "Any other questions?"}, "Any other questions? Yes.", False),
    ("startend:quotation", {}, '"all of it"', True),
    ("startend:quotation", {}, '"', False),
    ("change_case:english_capital", {}, "ALL 3 WORDS!", True),
    ("change_case:english_lowercase", {}, "123", False),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "A-B and C", True),
    ("punctuation:no_comma", {}, "one; two", True),
]

STRICTER: list[tuple[str, dict[str, Any], str, bool]] = [
    # Where the docstring of the grader says that it departs: the last column is what holds here, the opposite holds there.
    ("length_constraints:number_words", {"num_words": 2, "relation": "at least"}, "don't", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "one\n---\n* two", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "+ one", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "**b**", False),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 1},
        "See Section 1 of it",
        False,
    ),
    ("detectable_format:json_format", {}, "3", False),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "[]", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "a p.s. within", False),
    ("detectable_format:constrained_response", {}, "My answer is yes. My answer is no.", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it.", False),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "at least"}, "I'm here", False),
    ("punctuation:no_comma", {}, "one\uff0c two", False),
]


@pytest.mark.parametrize(("kind", "parameters", "response", "holds"), [*SAME, *STRICTER])
def test_a_rule_is_as_published_or_departs_where_it_says(
    kind: str, parameters: dict[str, Any], response: str, holds: bool
) -> None:
    assert Instructions().score(response, [{"type": kind, **parameters}]).correct is holds


def test_a_title_is_looked_for_in_linear_time() -> None:
    assert Title().unmet("<<" * 200_000) == "no <<title>>"


def test_what_is_within_fences_is_read_strictly() -> None:
    assert read_json('{"a": "```py```"}') == {"a": "```py```"}
