import time
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.grader import ScoringFault, build_grader
from verifier.graders.instructions.grader import AnyConstraint, Instructions
from verifier.graders.instructions.text import count_sentences, paragraphs, words

WORDS = "length_constraints:number_words"
SENTENCES = "length_constraints:number_sentences"
PARAGRAPHS = "length_constraints:number_paragraphs"
FIRST_WORD = "length_constraints:nth_paragraph_first_word"
CHARACTERS = "length_constraints:number_characters"
EXISTENCE = "keywords:existence"
FREQUENCY = "keywords:frequency"
FORBIDDEN = "keywords:forbidden_words"
LETTERS = "keywords:letter_frequency"
CAPITAL_WORDS = "change_case:capital_word_frequency"
CAPITAL = "change_case:english_capital"
LOWERCASE = "change_case:english_lowercase"
NO_COMMA = "punctuation:no_comma"
PLACEHOLDERS = "detectable_content:number_placeholders"
POSTSCRIPT = "detectable_content:postscript"
BULLETS = "detectable_format:number_bullet_lists"
NUMBERED = "detectable_format:numbered_list"
CONSTRAINED = "detectable_format:constrained_response"
HIGHLIGHTS = "detectable_format:number_highlighted_sections"
SECTIONS = "detectable_format:multiple_sections"
JSON = "detectable_format:json_format"
TITLE = "detectable_format:title"
TWO = "combination:two_responses"
REPEAT = "combination:repeat_prompt"
START = "startend:start_checker"
END = "startend:end_checker"
QUOTATION = "startend:quotation"

SECTION = {"section_spliter": "Section", "num_sections": 2}
BOTH_WAYS: dict[str, list[tuple[dict[str, Any], list[str], list[str]]]] = {
    # type: (parameters, responses that hold, responses that do not)
    WORDS: [
        ({"num_words": 3}, ["one two three", "don't be well-known!"], ["one two", "... -- !!! a b"]),
        ({"num_words": 3, "relation": "less than"}, ["one two"], ["one two three"]),
        ({"num_words": 3, "relation": "at most"}, ["one two three"], ["one two three four"]),
        ({"num_words": 3, "relation": "exactly"}, ["one two three"], ["one two", "a b c d"]),
        ({"num_words": 3, "relation": "more than"}, ["a b c d"], ["one two three"]),
    ],
    SENTENCES: [
        (
            {"num_sentences": 2, "relation": "exactly"},
            [
                "One. Two!",
                "Dr. Smith paid 3.50 to J. Doe. Did he?",
                "A heading\n\nA sentence.",
                "一。二。",
            ],
            ["One.", "One. Two. Three.", "Wait... what?! No", "...", "One two"],
        ),
    ],
    PARAGRAPHS: [
        (
            {"num_paragraphs": 2},
            ["a\n***\nb", "***\na\n\nx\n***\nb\n***"],
            ["a\n\nb", "a\n***\n***\nb", "a\n******\nb", "***"],
        ),
        ({"num_paragraphs": 2, "separator": "blank line"}, ["a\nb\n \n\nc"], ["a\n***\nb", "a\n\nb\n\nc"]),
    ],
    FIRST_WORD: [
        (
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weekend"},
            ["One.\n\nWeekend, at last.", "One.\n\n\n**weekend** plans"],
            ["Weekend.\n\nOne.", "One.\n\nWeekends are fine.", "Weekend", "a\n\nweekend\n\nb"],
        ),
    ],
    CHARACTERS: [({"num_characters": 4}, ["four", " four\n"], ["fours"])],
    EXISTENCE: [({"keywords": ["cat", "Dog"]}, ["The CAT and dogs."], ["The cat.", "dog"])],
    FREQUENCY: [
        ({"keyword": "war", "frequency": 2}, ["War and war.", "a warning: war"], ["One war.", "peace"]),
        ({"keyword": "a+", "frequency": 1}, ["grade A+"], ["aaa"]),
        ({"keyword": "war", "frequency": 1, "relation": "less than"}, ["peace"], ["war"]),
    ],
    FORBIDDEN: [
        (
            {"forbidden_words": ["cat", "c++"]},
            ["A category of c+."],
            ["The Cat!", "I like C++.", "a c\u200bat", "ｃａｔ", "cat_food"],
        )
    ],
    LETTERS: [
        ({"letter": "e", "let_frequency": 2}, ["Eve", "tree"], ["me", "no"]),
        ({"letter": "#", "let_frequency": 4}, ["#a #b #c #d"], ["#a #b #c"]),
        ({"letter": "t", "let_frequency": 2, "let_relation": "less than"}, ["the"], ["That"]),
    ],
    CAPITAL_WORDS: [
        ({"capital_frequency": 2}, ["NASA said NO to me."], ["NASA said no.", "Nasa Said No"]),
        ({"capital_frequency": 1, "capital_relation": "less than"}, ["none here"], ["HERE"]),
    ],
    CAPITAL: [({}, ["ALL OF IT, 1 2 3!"], ["Not all", "123"])],
    LOWERCASE: [({}, ["all of it, 1 2 3!"], ["Not all", "123"])],
    NO_COMMA: [({}, ["none here; or here"], ["one, two", "一，二", "one﹐two", "one⸴two"])],
    PLACEHOLDERS: [
        ({"num_placeholders": 2}, ["Dear [name], of [address]"], ["Dear [name]", "[[]] [ ] [a", "[a\nb] [c]"])
    ],
    POSTSCRIPT: [
        (
            {"postscript_marker": "P.S."},
            ["Yours.\nP.S. More.", "Yours.\n**P. S.** more", "Yours.\nP.S.\n\nMore."],
            ["Yours.", "It is P.S. more", "P.S.", "P.P.S. x"],
        ),
        ({"postscript_marker": "P.P.S"}, ["Yours.\nP.P.S. More."], ["Yours.\nP.S. More."]),
    ],
    BULLETS: [
        (
            {"num_bullets": 2},
            ["Two:\n* a\n* b", "- a\n  - b", "• a\ntext\n+ b", "* a\n***\n* b"],
            ["* a", "* a\n* b\n* c", "*a*\n**b**", "* \n* a", "a * b\nc - d"],
        ),
    ],
    NUMBERED: [({"num_points": 2}, ["1. a\n2. b", "1) a\n 2) b"], ["1. a", "1.5 is\n2.5 too", "in 1. a\nin 2. b"])],
    CONSTRAINED: [
        (
            {},
            ["My answer is yes.", "Well. My answer is no."],
            ["Yes.", "My answer is yes. My answer is no.", "my answer is yes"],
        ),
        ({"options": ["yes", "yes, but"]}, ["yes, but", "yes"], ["no"]),
    ],
    HIGHLIGHTS: [
        (
            {"num_highlights": 2},
            ["*a* and *b c*", "**a** and *b*"],
            ["**a**", "* a\n* b", "** ** and *a*", "*a\nb* *c*"],
        ),
    ],
    SECTIONS: [
        (
            SECTION,
            ["Section 1\na\nSection 2\nb", "**Section 1**\na\n## Section 2: x\nb", '"Section 1: a\nSection 2: b"'],
            ["Section 1\na", "see Section 1 and Section 2", "Section 1\na\nSection 1\nb", "SECTION 1\nSECTION 2"],
        ),
    ],
    JSON: [
        (
            {},
            ['{"a": 1}', "```json\n[1]\n```", '```\n{"a": "b"}\n```'],
            [
                "{a: 1}",
                '"only a text"',
                '{"a": 1} there',
                "```json\n1\n```",
                '{"a": 1, "a": 2}',
                "```json\n[1]\n```\n```json\n[2]\n```",
                "[NaN]",
            ],
        )
    ],
    TITLE: [({}, ["<<Ode>>\nO!", "O <<to\njoy>> <<b>>"], ["<Ode>", "<< >>", "<<a\nb>>", "<<\u200b>>"])],
    TWO: [
        (
            {},
            ["a\n******\nb"],
            ["a", "a\n******\na", "a\n******\nb\n******\nc", "******\nb", "a ****** ****** b", "a******\u2060"],
        )
    ],
    REPEAT: [
        (
            {"prompt_to_repeat": "Say it again."},
            ["say it  again. It."],
            ["Say it again.", "It. Say it again.", "Say it"],
        )
    ],
    START: [({"start_phrase": "Dear all"}, ["dear all, hello", '"Dear all"'], ["Hello, dear all"])],
    END: [
        ({"end_phrase": "The end."}, ["So. the end.", '"So. The end."'], ["The end. So.", "The end", "The end. " + "x"])
    ],
    QUOTATION: [({}, ['"All of it."'], ['"Not" all', "'All'", '"', '""', '" "'])],
}
CASES = [
    (kind, parameters, response, holds)
    for kind, cases in BOTH_WAYS.items()
    for parameters, held, broken in cases
    for holds, responses in ((True, held), (False, broken))
    for response in responses
]


@pytest.mark.parametrize(("kind", "parameters", "response", "holds"), CASES)
def test_a_constraint_holds_or_says_what_is_wrong(
    kind: str, parameters: dict[str, Any], response: str, holds: bool
) -> None:
    judgment = Instructions().score(response, [{"type": kind} | parameters])
    assert judgment.correct is holds, judgment.detail
    assert judgment.detail.startswith("" if holds else f"{kind}: ")
    assert bool(judgment.detail) is not holds


def test_every_type_is_tried_both_ways_and_explains_itself() -> None:
    types = {one.__struct_config__.tag: one for one in get_args(AnyConstraint)}
    assert types.keys() == BOTH_WAYS.keys()
    assert len(types) >= 20
    for cases in BOTH_WAYS.values():
        assert any(held for _, held, _ in cases)
        assert any(broken for _, _, broken in cases)
    assert all(one.__doc__ and one.__doc__.endswith(".") for one in types.values())


def test_an_empty_response_holds_nothing_not_even_the_absence_of_commas() -> None:
    for response in ("", " \n\t"):
        judgment = Instructions(all_must_hold=False).score(response, [{"type": NO_COMMA}])
        assert (judgment.correct, judgment.reward) == (False, None)


def test_all_must_hold_or_the_share_counts() -> None:
    reference = [{"type": NO_COMMA}, {"type": TITLE}, {"type": WORDS, "num_words": 2}, {"type": QUOTATION}]
    strict, lenient = Instructions(), build_grader(Instructions, {"all_must_hold": False})
    half = "one two three"
    assert strict.score(half, reference)[::2] == (False, None)
    assert lenient.score(half, reference)[::2] == (False, 0.5)
    assert strict.score(half, reference).detail == f"{TITLE}: no <<title>>; {QUOTATION}: not within quotation marks"
    whole = '"<<one>> two"'
    assert strict.score(whole, reference)[::2] == (True, None)
    assert lenient.score(whole, reference)[::2] == (True, 1.0)


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_the_share_is_that_of_the_constraints_that_hold(hold: list[bool]) -> None:
    reference = [{"type": EXISTENCE, "keywords": ["here" if held else "absent"]} for held in hold]
    judgment = Instructions(all_must_hold=False).score("here", reference)
    assert judgment.reward == pytest.approx(sum(hold) / len(hold))
    assert judgment.correct is all(hold)


def test_rows_of_ifeval_as_parquet_gives_them_are_read() -> None:
    union = {"num_words": None, "relation": None, "keywords": None, "num_highlights": None}
    reference = [
        union | {"type": NO_COMMA},
        union | {"type": HIGHLIGHTS, "num_highlights": 1.0},
        union | {"type": WORDS, "num_words": 3.0, "relation": "at least"},
    ]
    assert Instructions().score("one *two* three", reference).correct
    assert not Instructions().score("one *two*", reference).correct


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (None, "reference must be a list of 1 to 100 constraints"),
        ([], "reference must be a list of 1 to 100 constraints"),
        ({"type": NO_COMMA}, "reference must be a list of 1 to 100 constraints"),
        ([{"type": NO_COMMA}] * 101, "reference must be a list of 1 to 100 constraints"),
        (["no commas"], r"Expected `object`, got `str` - at `\$\[0\]`"),
        ([{"type": NO_COMMA}, {}], r"missing required field `type` - at `\$\[1\]`"),
        ([{"type": "language:response_language", "language": "kn"}], "Invalid value 'language:response_language'"),
        ([{"type": WORDS}], "missing required field `num_words`"),
        ([{"type": WORDS, "num_words": "three"}], "Expected `int`, got `str`"),
        ([{"type": WORDS, "num_words": 2.5}], "Expected `int`, got `float`"),
        ([{"type": WORDS, "num_words": -1}], "Expected `int` >= 0"),
        ([{"type": WORDS, "num_words": 1, "relation": "about"}], "Invalid enum value 'about'"),
        ([{"type": WORDS, "num_words": 1, "relaton": "at least"}], "contains unknown field `relaton`"),
        ([{"type": EXISTENCE, "keywords": []}], "length >= 1"),
        ([{"type": EXISTENCE, "keywords": [" "]}], "matching regex"),
        ([{"type": LETTERS, "letter": "ab", "let_frequency": 1}], "length <= 1"),
        (
            [{"type": FIRST_WORD, "num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"}],
            "nth_paragraph = 2 is beyond",
        ),
    ],
)
def test_a_reference_that_cannot_be_read_is_a_fault_with_its_place(reference: Any, says: str) -> None:
    with pytest.raises(ScoringFault, match=says):
        Instructions().check(reference)
    with pytest.raises(ScoringFault, match=says):
        Instructions().score("", reference)


EVERYTHING = [{"type": kind} | cases[0][0] for kind, cases in BOTH_WAYS.items()] + [
    {"type": FORBIDDEN, "forbidden_words": ["aaaaaaaaab"]},
    {"type": EXISTENCE, "keywords": ["a" * 50 + "b"]},
]


MARKS = [
    "a",
    "A",
    "ß",
    "一",
    "a-",
    "a.",
    "'",
    '"',
    ".",
    "!?",
    ".)",
    '?)"',
    "1.",
    "*",
    "**",
    "*a",
    "***",
    "[",
    "[a",
    "<<",
]
LINES = ["<<a", "\n", " ", "\n \n", "\u2028", "# ", "- ", "```\n", '{"a":', "Section 1\n", "P.S. "]


@pytest.mark.parametrize("unit", MARKS + LINES)
def test_a_flood_of_anything_takes_linear_time(unit: str) -> None:
    flood = (unit * (1_000_000 // len(unit)) + "x").lstrip() or "x"
    start = time.thread_time()
    judgment = Instructions().score(flood, EVERYTHING)
    assert time.thread_time() - start < 5
    assert not judgment.correct
    assert len(judgment.detail) < 400


@given(st.text(max_size=200))
def test_no_response_raises_anything(response: str) -> None:
    Instructions().score(response, EVERYTHING)


@given(
    st.lists(st.sampled_from(["One", "Two three", "4 of them"]), min_size=1, max_size=6),
    st.sampled_from([". ", "! ", "?\n", "...\n"]),
)
def test_sentences_that_are_written_apart_are_counted_apart(sentences: list[str], between: str) -> None:
    assert count_sentences("".join(sentence + between for sentence in sentences)) == len(sentences)


@given(
    st.lists(
        st.text(alphabet="ab\n", min_size=1).filter(lambda text: text.strip() and "\n\n" not in text),
        min_size=1,
        max_size=5,
    )
)
def test_paragraphs_are_what_blank_lines_separate(parts: list[str]) -> None:
    parts = [part.strip("\n") for part in parts]
    assert [paragraph.strip("\n") for paragraph in paragraphs("\n\n".join(parts))] == parts


def test_words_are_runs_of_letters_and_digits() -> None:
    assert words("It's a 'well-known' e-mail_list - 3 – naïve") == [
        "It's",
        "a",
        "well-known",
        "e-mail",
        "list",
        "3",
        "naïve",
    ]
