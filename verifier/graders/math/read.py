"""From an answer in LaTeX to what it states: a value, several, a set, a tuple, an interval, an equation, a matrix or words.

Structure is read here, from the notation of notation.py; expressions inside it are those of expression.py. What does not fit
any of the forms is refused with Unreadable, because a lenient reading is what a model would learn to exploit.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import sympy  # type: ignore[import-untyped]

from verifier.graders.math import matrices, regions
from verifier.graders.math.expression import Unreadable, expression
from verifier.graders.math.notation import depths, plain
from verifier.graders.math.regions import Region
from verifier.graders.math.units import without_unit

MOST_ITEMS = 60
MOST_SIGNS = 3  # of plus-or-minus signs, each of which doubles the answers


@dataclass(frozen=True)
class Value:
    expr: sympy.Expr
    unit: str = ""
    percent: bool = False
    degrees: bool = False


@dataclass(frozen=True)
class Based:
    """A numeral with its base written behind it."""

    digits: str
    base: int


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Many:
    """Several answers side by side, in no order."""

    items: tuple["Answer", ...]


@dataclass(frozen=True)
class SetOf:
    items: tuple["Answer", ...]


@dataclass(frozen=True)
class TupleOf:
    items: tuple["Answer", ...]
    round: bool = True
    """In round brackets: a pair of numbers may also be an open interval."""


@dataclass(frozen=True)
class RatioOf:
    items: tuple["Answer", ...]
    clock: bool
    """It may be a time of day, which has no proportions."""

    def terms(self) -> list[sympy.Expr]:
        """Empty when they have no proportions, as 0:0 and 3 cm : 4 m."""
        values = [item for item in self.items if isinstance(item, Value)]
        kinds = {(value.unit, value.percent, value.degrees) for value in values}
        stated = [value.expr for value in values]
        return stated if len(stated) == len(self.items) and len(kinds) == 1 and any(stated) else []


@dataclass(frozen=True)
class Span:
    region: Region
    name: str = ""
    """The variable, where it is an inequality that says so."""


@dataclass(frozen=True)
class Ends:
    """An interval whose ends hold variables."""

    low: sympy.Expr
    high: sympy.Expr
    low_open: bool
    high_open: bool


@dataclass(frozen=True)
class Named:
    name: str
    value: "Answer"
    left: str
    right: str


@dataclass(frozen=True)
class Equation:
    left: str
    right: str


@dataclass(frozen=True)
class Order:
    """Inequalities in more than one variable, or not linear: each difference is below zero, or at most zero."""

    differences: tuple[sympy.Expr, ...]
    strict: tuple[bool, ...]


@dataclass(frozen=True)
class Matrix:
    rows: matrices.Rows


Answer = Value | Based | Words | Many | SetOf | TupleOf | RatioOf | Span | Ends | Named | Equation | Order | Matrix

RELATION = re.compile(
    r"\\(le|ge|ne|approx|in|equiv|notin|subset|subseteq|Rightarrow|implies|iff|sim|propto)(?![a-zA-Z])|(<|>|=)"
)
SEPARATOR = re.compile(r"\\land(?![a-zA-Z])|\\lor(?![a-zA-Z])|,|;")
SET_SIGN = re.compile(r"\\cup(?![a-zA-Z])|\\cap(?![a-zA-Z])|\\setminus(?![a-zA-Z])")
CONDITION = re.compile(
    r"\s*(?:\\text\{[^{}]*\}\s*)?[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\\in\s*\\mathbb\s*\{?\s*[ZNQR]\s*\}?(?:\^\{?[+*]\}?)?\s*"
)
PARAMETER = re.compile(r"(?<![a-zA-Z\\])([a-zA-Z])\s*\\in\s*\\mathbb\s*(\{?\s*[ZNQR]\s*\}?(?:\^\{?[+*]\}?)?)\s*$")
NUMBER_SETS = {"R": regions.REALS}
ENVIRONMENT = re.compile(
    r"\\begin\s*\{((?:[pbBvV]|small)?matrix|array|cases|aligned|align\*?)\}(?:\s*\{[lcr| ]*\})?(.*?)\\end\s*\{\1\}",
    re.DOTALL,
)
BASED = re.compile(r"([0-9A-Fa-f]+)\s*_\s*(?:\{\s*(?:\\text\{\s*(?:base)?\s*\}?)?\s*(\w+)\s*\}?\s*\}|(\d))")
BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}
# Possessive, or two ways to split a run of commands would multiply.
NAME = re.compile(
    r"(?:\\(?!frac|sqrt|sin|cos|tan|log|ln|text|cdot|pi\b)[a-zA-Z]++\s*+|[a-zA-Z])"
    r"(?:_(?:\{[^{}]*\}|\w)|')*+(?:\s*+\([\w, ]++\))?"
)
QUANTITY = re.compile(
    r"(?=.*[a-zA-Z])(?:\\text\s*\{[^{}]*\}|\\[a-zA-Z]++"
    r"|[a-zA-Z+\-|()\[\]:, {}'/]|\^\{-1\}|\^|_\s*(?:\{[^{}]*\}|\w)|(?<=\()\d++(?=\)))++"
)
WORDS_ONLY = re.compile(r"(?:[\s({]*+\\text\s*\{[^{}]*\}[\s)}]*+)++")
CLOCK = re.compile(r"\s*\d{1,2}\s*:\s*[0-5]\d\s*")
DENIAL = re.compile(r"\\text\s*\{[^{}]*\b(?:not|never|no|wrong|incorrect|false)\b", re.IGNORECASE)
PLAIN_WORD = re.compile(r"[A-Z]{3,}|[A-Za-z]{4,}|[Yy]es|[Nn]o|[Oo]dd|[Oo]ne|[Tt]wo|[Tt]en")
"""A word, or letters in an order: as a product, east would be seat."""
EMPTY = re.compile(r"\\emptyset\s*|\\\{\s*\\\}")
NO_SOLUTION = frozenset(
    {"no solution", "no solutions", "no real solution", "no real solutions", "empty set", "the empty set", "none"}
    | {"no solution exists", "no solutions exist", "there is no solution", "there are no solutions"}
)


@lru_cache(maxsize=2048)
def read(latex: str) -> Answer:
    """Raises Unreadable."""
    return _several(plain(latex))


def parameter_of(latex: str) -> tuple[str, str]:
    """The letter that stands for numbers of some kind, as in k\\pi, k \\in \\mathbb{Z}, and the kind. Empty without one."""
    found = PARAMETER.search(plain(latex))
    return (found[1], "".join(found[2].split()).strip("{}")) if found else ("", "")


def words_of(latex: str) -> str:
    """As text: letter case, brackets and punctuation aside."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", plain(latex))
    text = re.sub(r"\\(land|lor)(?![a-zA-Z])", lambda found: " and " if found[1] == "land" else " or ", text)
    return " ".join(re.sub(r"[(){}\[\].,;:!?\"'*]", " ", text).casefold().split())


def _top_level(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    depth = depths(text)
    return [found for found in pattern.finditer(text) if depth[found.start()] == 0]


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    parts, start = [], 0
    for found in _top_level(pattern, text):
        parts.append(text[start : found.start()])
        start = found.end()
    return [part.strip() for part in [*parts, text[start:]]]


def _bare(text: str) -> str:
    """Without the full stop behind it and the braces around it."""
    if re.search(r"\.\s*\.\s*$", text):
        raise Unreadable("the answer goes on")
    text = text.strip().rstrip(".,;:").strip() if not text.endswith("\\") else text.strip()
    while text.startswith("{") and text.endswith("}") and not text.endswith("\\}") and _closes_at_end(text):
        text = text[1:-1].strip()
    return text


def _several(text: str) -> Answer:  # noqa: PLR0911
    text = _bare(text)
    if not text:
        raise Unreadable("a part of the answer is empty")
    if text.count(",") > MOST_ITEMS:
        raise Unreadable("the answer has too many parts")
    if "\\begin" in text:
        return _environment(text)
    if words_of(text) in NO_SOLUTION:
        return SetOf(())
    if WORDS_ONLY.fullmatch(text):
        words = words_of(text)
        if not re.fullmatch(r"[a-z]", words):
            return Words(words)
        text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
    separators = [found[0] for found in _top_level(SEPARATOR, text)]
    if not separators:
        return _one(text)
    if ";" in separators and {","} < set(separators):
        rows = [_several(part) for part in _split(re.compile(";"), text) if part]
        return Many(tuple(TupleOf(row.items) if isinstance(row, Many) else row for row in rows))
    parts = [part for part in _split(SEPARATOR, text) if part]
    if not parts:
        raise Unreadable("a part of the answer is empty")
    kept = [part for part in parts if not CONDITION.fullmatch(part)] or parts
    answers = [_one(part) for part in kept]
    if any(isinstance(answer, Span) for answer in answers) and any(
        CONDITION.fullmatch(part) and not re.search(r"mathbb\s*\{?\s*R\s*\}?\s*$", part) for part in parts
    ):
        raise Unreadable("an interval of whole numbers")
    if any(isinstance(answer, Span) and answer.name for answer in answers):
        return _joined_inequalities(answers, separators)
    flat = [item for answer in answers for item in (answer.items if isinstance(answer, Many) else (answer,))]
    return flat[0] if len(flat) == 1 else Many(tuple(flat))


def _joined_inequalities(answers: list[Answer], separators: list[str]) -> Answer:
    spans = [answer for answer in answers if isinstance(answer, Span)]
    kinds = {separator.strip() for separator in separators} - {","}
    if len(spans) != len(answers) or len({span.name for span in spans}) != 1 or len(kinds) > 1:
        return Many(tuple(answers))
    region = spans[0].region
    for other in spans[1:]:
        # A comma between two inequalities for one variable says that both hold.
        join = regions.union if "\\lor" in kinds else regions.intersection
        region = join(region, other.region)
    if not region and not kinds:  # both cannot hold, so that it can only mean one or the other
        for span in spans:
            region = regions.union(region, span.region)
    return Span(region, spans[0].name)


def _one(text: str) -> Answer:  # noqa: PLR0911
    text = _bare(text)
    if (
        text.startswith("\\{")
        and text.endswith("\\}")
        and not EMPTY.fullmatch(text)
        and _closes_at_end(text[1:-2] + "}")
    ):
        return _set(text[2:-2].strip())
    if text.count("\\pm") + text.count("\\mp"):
        return _both_signs(text)
    relations = _top_level(RELATION, text)
    if relations:
        return _relation(text, relations)
    if WORDS_ONLY.fullmatch(text) or PLAIN_WORD.fullmatch(text):
        return Words(words_of(text))
    if EMPTY.fullmatch(text):
        return SetOf(())
    if _top_level(SET_SIGN, text):
        return Span(_set_algebra(text))
    if text in {"\\mathbb{R}", "\\mathbb R", "\\R"}:
        return Span(regions.REALS)
    if (bracketed := _bracketed(text)) is not None:
        return bracketed
    if len(parts := _split(re.compile(":"), text)) > 1:
        return RatioOf(tuple(_one(part) for part in parts), clock=CLOCK.fullmatch(text) is not None)
    if based := BASED.fullmatch(text.replace("\\text{base}", "")):
        base = based[2] or based[3]
        number = int(base) if base.isdigit() else BASES.get(base.lower(), 0)
        if number and all(int(digit, 36) < number for digit in based[1]):
            return Based(based[1].upper().lstrip("0") or "0", number)
    measured = without_unit(text)
    return Value(expression(measured.number), measured.unit, measured.percent, measured.degrees)


def _both_signs(text: str) -> Answer:
    signs = re.findall(r"\\pm|\\mp", text)
    if len(signs) > MOST_SIGNS:
        raise Unreadable("the answer has too many plus-or-minus signs")
    if "\\mp" in signs:  # tied: the upper signs together, then the lower ones
        readings = [text.replace("\\pm", upper).replace("\\mp", lower) for upper, lower in (("+", "-"), ("-", "+"))]
    else:
        readings = [text]
        for _ in signs:
            readings = [reading.replace("\\pm", sign, 1) for reading in readings for sign in "+-"]
    answers = [_one(re.sub(r"(^|[=(,{])\s*\+", r"\1", reading)) for reading in readings]
    return Many(tuple(item for answer in answers for item in (answer.items if isinstance(answer, Many) else (answer,))))


def _closes_at_end(text: str) -> bool:
    """text begins with a bracket, and the one that closes it is the last character."""
    depth = depths(text)
    return 0 not in depth[1:-1] and depth[-1] == 0


def _set(inside: str) -> Answer:
    builder = _split(re.compile(r"\||:"), inside)
    if len(builder) == 2 and _top_level(RELATION, builder[1]):
        condition = _several(builder[1])
        variable, *domain = (side.strip() for side in re.split(r"\\in(?![a-zA-Z])", builder[0]))
        is_real = not domain or isinstance(_one(domain[0]), Span)
        if isinstance(condition, Span) and condition.name == variable and is_real:
            return Span(condition.region)
        raise Unreadable("a set with a condition that cannot be read")
    inner = _several(inside)
    return SetOf(inner.items if isinstance(inner, Many) else (inner,))


def _bracketed(text: str) -> Answer | None:
    """A tuple or an interval. None when the text is not one pair of brackets around several parts."""
    if len(text) < 2 or text[0] not in "([]" or text[-1] not in ")][":
        return None
    if not _closes_at_end("(" + text[1:-1] + ")"):
        return None
    items = _split(re.compile("[,;]"), text[1:-1])
    if len(items) == 1:
        return _one(text[1:-1]) if text[0] + text[-1] == "()" and _holds_structure(text[1:-1]) else None
    if len(items) == 2 and (text[0] + text[-1] != "()" or "\\infty" in text):
        low, high = (expression(item) for item in items)
        low_open, high_open = text[0] != "[", text[-1] != "]"
        if low.free_symbols or high.free_symbols:
            return Ends(low, high, low_open, high_open)
        return Span(regions.span(low, high, low_open=low_open, high_open=high_open))
    if text[0] == "]" or text[-1] == "[" or (text[0] + text[-1] not in {"()", "[]"}):
        raise Unreadable("brackets that do not match")
    answers = [_one(item) for item in items]
    if any(isinstance(answer, Many) for answer in answers):
        raise Unreadable("several answers within a tuple")
    return TupleOf(tuple(answers), round=text[0] == "(")


def _holds_structure(text: str) -> bool:
    return bool(_top_level(SEPARATOR, text) or _top_level(RELATION, text) or text.startswith("\\text"))


def _set_algebra(text: str) -> Region:
    signs = _top_level(SET_SIGN, text)
    parts = _split(SET_SIGN, text)
    region = _region(parts[0])
    join = {"\\cup": regions.union, "\\cap": regions.intersection, "\\setminus": regions.difference}
    if len({sign[0] for sign in signs}) > 1:
        raise Unreadable("set operations without brackets")
    for sign, part in zip(signs, parts[1:], strict=True):
        region = join[sign[0]](region, _region(part))
    return region


def _region(text: str) -> Region:
    answer = _one(text)
    if isinstance(answer, TupleOf) and answer.round and len(answer.items) == 2:
        low, high = (item.expr for item in answer.items if isinstance(item, Value))
        return regions.span(low, high, low_open=True, high_open=True)
    if isinstance(answer, SetOf) and all(isinstance(item, Value) for item in answer.items):
        return regions.points([item.expr for item in answer.items if isinstance(item, Value)])
    if isinstance(answer, Span):
        return answer.region
    raise Unreadable("a set that cannot be read")


def _relation(text: str, relations: list[re.Match[str]]) -> Answer:
    signs = [found[1] or found[2] for found in relations]
    sides, start = [], 0
    for found in relations:
        sides.append(text[start : found.start()].strip())
        start = found.end()
    sides.append(text[start:].strip())
    if "approx" in signs:  # a rounding behind the exact value says nothing; behind a name it is the value
        first = signs.index("approx")
        if first == 0 and not QUANTITY.fullmatch(sides[0]):
            return _one(sides[0])
        if first == 0:
            return Named(sides[0], _one(sides[1]), sides[0], sides[1])
        return _one(text[: relations[first].start()])
    if set(signs) == {"="}:
        return _equation(sides)
    if signs == ["in"] and QUANTITY.fullmatch(sides[0]):
        return Named(_name(sides[0]), _set_member(text[relations[0].end() :]), sides[0], sides[1])
    if all(sign in {"<", ">", "le", "ge", "ne"} for sign in signs):
        return _inequality(sides, signs)
    raise Unreadable("a relation that cannot be read")


def _set_member(text: str) -> Answer:
    answer = _one(text)
    if isinstance(answer, TupleOf) and answer.round and len(answer.items) == 2:
        return Span(_region(text))
    return answer


def _name(text: str) -> str:
    return re.sub(r"\s+|[{}]", "", text)


def _equation(sides: list[str]) -> Answer:
    if any(not side for side in sides):
        raise Unreadable("one side of an equation is empty")
    left, right = sides[0], sides[-1]
    if left.startswith("-"):
        return Equation(left, right)
    if DENIAL.search(left):
        raise Unreadable("an answer that is denied")
    if not QUANTITY.fullmatch(left) and not re.fullmatch(
        r"\\(?:frac|overline)\s*\{[A-Za-z ]+\}(?:\s*\{[A-Za-z ]+\})?", left
    ):
        if any(symbol.isalpha() for symbol in re.sub(r"\\[a-zA-Z]+", "", left + right)) or len(sides) > 2:
            return Equation(left, right)
        values = [_one(side) for side in sides]
        if left == right:
            raise Unreadable("an equation that says nothing")
        if isinstance(values[0], Value) and isinstance(values[1], Value) and not values[0].expr.free_symbols:
            if sympy.N(values[0].expr - values[1].expr, 50, chop=True) == 0:
                return values[-1]
            raise Unreadable("an equation that does not hold")
        return Equation(left, right)
    numbers = [side for side in sides[1:] if not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", side))]
    if len(numbers) > 1:
        values = [_one(side) for side in numbers]
        exact = [value.expr for value in values if isinstance(value, Value)]
        if any(sympy.N(exact[0] - other, 50, chop=True) != 0 for other in exact[1:]):
            raise Unreadable("an equation that does not hold")
    return Named(_name(left), _one(right), left, right)


def _inequality(sides: list[str], signs: list[str]) -> Answer:
    exprs = [_function_as_variable(expression(side)) for side in sides]
    symbols = set().union(*(expr.free_symbols for expr in exprs))
    pairs = list(zip(exprs, signs, exprs[1:], strict=False))
    if len(symbols) == 1:
        (symbol,) = symbols
        region: Region | None = regions.REALS
        for left, sign, right in pairs:
            part = _solved(left, sign, right, symbol)
            region = None if region is None or part is None else regions.intersection(region, part)
        if region is not None:
            return Span(region, str(symbol))
    if "ne" not in signs:
        below = [left - right if sign in {"<", "le"} else right - left for left, sign, right in pairs]
        return Order(tuple(below), tuple(sign in {"<", ">"} for sign in signs))
    raise Unreadable("an inequality that cannot be read")


def _function_as_variable(expr: sympy.Expr) -> sympy.Expr:
    return expr.replace(
        lambda node: isinstance(node, sympy.core.function.AppliedUndef), lambda call: sympy.Symbol(str(call))
    )


def _solved(left: sympy.Expr, sign: str, right: sympy.Expr, symbol: sympy.Symbol) -> Region | None:
    """None when it is not linear, an absolute value aside."""
    if left in {sympy.oo, -sympy.oo} or right in {sympy.oo, -sympy.oo}:
        is_below = sign in {"<", "le"} if right.is_finite is False else sign in {">", "ge"}
        if sign == "ne" or is_below != (sympy.oo in {left, right}):
            raise Unreadable("an inequality that cannot be read")
        return regions.REALS
    difference = sympy.expand(left - right)
    if len(absolutes := difference.atoms(sympy.Abs)) == 1:
        return _solved_by_sign(difference, sign, symbol, absolutes.pop())
    slope = difference.coeff(symbol, 1)
    rest = sympy.expand(difference - slope * symbol)
    if rest.has(symbol) or not rest.is_real or not (slope.is_positive or slope.is_negative):
        return None
    edge = -rest / slope
    if sign == "ne":
        return regions.difference(regions.REALS, regions.points([edge]))
    below = (sign in {"<", "le"}) == bool(slope.is_positive)
    is_open = sign in {"<", ">"}
    low, high = (-sympy.oo, edge) if below else (edge, sympy.oo)
    return regions.span(low, high, low_open=is_open, high_open=is_open)


def _solved_by_sign(difference: sympy.Expr, sign: str, symbol: sympy.Symbol, absolute: sympy.Abs) -> Region | None:
    """With one |ax + b|: solved where ax + b is at least zero, and where it is below."""
    (inside,) = absolute.args
    region: Region = ()
    for half, value in (("ge", inside), ("<", -inside)):
        side = _solved(inside, half, sympy.Integer(0), symbol)
        part = _solved(difference.xreplace({absolute: value}), sign, sympy.Integer(0), symbol)
        if side is None or part is None:
            return None
        region = regions.union(region, regions.intersection(side, part))
    return region


def _row(row: str) -> Answer:
    """x &= 1 is an equation, x & x > 0 a value with its condition."""
    value, _, condition = (part.strip() for part in row.partition("&"))
    if not condition or RELATION.match(condition) or RELATION.search(value):
        return _one(row.replace("&", " "))
    condition = re.sub(r"\\text\s*\{\s*,?\s*(?:if|for|when|where)\s*\}", "", condition)
    return TupleOf((_one(value), _several(condition)), round=False)


def _environment(text: str) -> Answer:
    environments = list(ENVIRONMENT.finditer(text))
    if not environments:
        raise Unreadable("an environment that is not closed")
    kind, body = environments[0][1], environments[0][2]
    before, behind = text[: environments[0].start()].strip(), text[environments[0].end() :].strip(" .")
    if kind in {"cases", "aligned", "align", "align*"} or before.endswith("\\{"):
        before = before.removesuffix("\\{").rstrip()
        name = before.removesuffix("=").rstrip()
        if behind or before == name != "":
            raise Unreadable("something stands around the equations")
        items = [_row(row) for row in _rows(body)]
        listed = items[0] if len(items) == 1 else Many(tuple(items))
        return Named(_name(name), listed, name, "") if name else listed
    ends = [0, *(found.end() for found in environments)]
    starts = [*(found.start() for found in environments), len(text)]
    between = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    if any(found[1] in {"vmatrix", "Vmatrix"} for found in environments) or any("|" in part for part in between):
        raise Unreadable("a determinant is not worked out")
    if any("matrix" not in found[1] and found[1] != "array" for found in environments):
        raise Unreadable("something stands behind the matrix")
    relation = re.fullmatch(r"(.*?)=\s*(.*)", before)
    name, between[0] = (relation[1], relation[2]) if relation else ("", before)
    matrix = Matrix(matrices.worked_out([_cells(found[2]) for found in environments], between))
    return Named(_name(name), matrix, name, "") if name else matrix


def _rows(body: str) -> list[str]:
    return [row.strip() for row in re.split(r"\\\\", body) if row.strip()]


def _cells(body: str) -> matrices.Rows:
    cells = tuple(tuple(expression(_bare(cell)) for cell in row.split("&")) for row in _rows(body))
    if len({len(row) for row in cells}) != 1:
        raise Unreadable("a matrix whose rows differ in length")
    return cells
