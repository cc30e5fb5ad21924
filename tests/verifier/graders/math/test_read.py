"""The grammar of answers: which reader takes what, in which order, and what becomes of each form."""

import pytest
import sympy  # type: ignore[import-untyped]

from verifier.graders.math.expression import Unreadable
from verifier.graders.math.forms import Answer, Based, Many, Named, RatioOf, SetOf, Span, TupleOf, Value, Words
from verifier.graders.math.notation import plain
from verifier.graders.math.read import ANSWERS, GRAMMAR, PARTS, part, read
from verifier.graders.math.reader import Before, Reader, reader_of

TABLES = {"ANSWERS": ANSWERS, "PARTS": PARTS}
ROWS = [(table, reader) for table, readers in TABLES.items() for reader in readers]
ORDERS = [(table, reader, before) for table, reader in ROWS for before in reader.before]
EXAMPLES = [(table, reader.name, reader.example) for table, reader in ROWS] + [
    (table, reader.name, before.example) for table, reader, before in ORDERS
]


def outcome(reader: Reader, text: str) -> Answer | str:
    try:
        return reader.read(text, GRAMMAR)
    except Unreadable as fault:
        return str(fault)


def value(number: int) -> Value:
    return Value(sympy.Integer(number))


@pytest.mark.parametrize(("table", "name", "example"), EXAMPLES)
def test_the_named_reader_takes_its_example(table: str, name: str, example: str) -> None:
    assert plain(example) == example
    assert reader_of(TABLES[table], example).name == name


@pytest.mark.parametrize(("table", "name", "example"), EXAMPLES)
def test_every_later_reader_that_would_take_an_example_is_named(table: str, name: str, example: str) -> None:
    readers = TABLES[table]
    at = next(at for at, reader in enumerate(readers) if reader.name == name)
    later = {reader.name for reader in readers[at + 1 : -1] if reader.takes(example)}
    assert later <= {before.reader for before in readers[at].before}


@pytest.mark.parametrize(("table", "reader", "before"), ORDERS)
def test_the_order_matters_where_the_table_says_so(table: str, reader: Reader, before: Before) -> None:
    names = [row.name for row in TABLES[table]]
    assert names.index(before.reader) > names.index(reader.name)
    later = next(row for row in TABLES[table] if row.name == before.reader)
    assert later.takes(before.example)
    assert outcome(later, before.example) != outcome(reader, before.example)


@pytest.mark.parametrize("table", TABLES)
def test_names_are_unique_and_the_last_reader_takes_everything(table: str) -> None:
    readers = TABLES[table]
    assert len({reader.name for reader in readers}) == len(readers)
    for _, _, example in EXAMPLES:
        assert readers[-1].takes(example)


@pytest.mark.parametrize(
    ("latex", "answer"),
    [
        ("12", value(12)),
        ("5\\text{ cm}", Value(sympy.Integer(5), unit="cm")),
        ("50\\%", Value(sympy.Integer(50), percent=True)),
        ("90^\\circ", Value(sympy.Integer(90), degrees=True)),
        ("101_2", Based("101", 2)),
        ("\\text{Yes}", Words("yes")),
        ("\\text{no solution}", SetOf(())),
        ("\\emptyset", SetOf(())),
        ("\\{1, 2\\}", SetOf((value(1), value(2)))),
        ("1, 2", Many((value(1), value(2)))),
        ("(1, 2)", TupleOf((value(1), value(2)))),
        ("1, 2; 3, 4", Many((TupleOf((value(1), value(2))), TupleOf((value(3), value(4)))))),
        ("1:2", RatioOf((value(1), value(2)), clock=False)),
        ("12:30", RatioOf((value(12), value(30)), clock=True)),
        ("x = 5", Named("x", value(5), "x", "5")),
        ("\\pm 2", Many((value(2), value(-2)))),
        ("2 \\pm 1 \\mp 1", Many((value(2), value(2)))),
        ("{{7}}.", value(7)),
        ("\\text{C}", Value(sympy.Symbol("C"))),
    ],
)
def test_an_answer_is_read_as_the_form_that_it_has(latex: str, answer: Answer) -> None:
    assert read(latex) == answer


def test_the_real_numbers_are_an_interval_without_ends() -> None:
    assert read("\\mathbb{R}") == read("(-\\infty, \\infty)")
    assert isinstance(read("\\mathbb{R}"), Span)


@pytest.mark.parametrize(
    ("latex", "why"),
    [
        ("", "empty"),
        ("1, 2, ...", "goes on"),
        (",".join("1" * 62), "too many parts"),
        ("\\pm 1 \\pm 2 \\pm 3 \\pm 4", "too many plus-or-minus signs"),
        ("A \\subset B", "relation"),
    ],
)
def test_what_has_no_form_is_refused_with_the_reason(latex: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read(latex)


def test_a_part_holds_no_list() -> None:
    with pytest.raises(Unreadable):
        part("1, 2")
