"""One expression: from LaTeX to sympy by math-verify's parser.

math-verify's parser reads some notations wrongly, 2(3) as 5 and "3 4" as 7. So factors are joined by signs before it sees
them, and what is not on the list of commands that it reads rightly is refused.
"""

import math
import re
from fractions import Fraction
from functools import lru_cache

import sympy  # type: ignore[import-untyped]
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy  # type: ignore[import-untyped]

from verifier.graders.math.notation import depths

CONVERSION = ConversionConfig(lowercase_symbols=False, interpret_as_mixed_fractions=False)
LARGEST_BITS = 2_000_000
"""Size of the largest number in an answer: 2^{1000000} can be judged, 9^{9^{9^9}} is refused."""
DEEPEST = 30
LARGEST_BINOMIAL_BITS = 64_000
"""Below it a binomial coefficient takes a fifth of a second."""
CALL = re.compile(r"(?<![a-zA-Z\\_])(f)\s*\(")
BINOMIAL = re.compile(r"\\binom\s*\{")
LONGEST_SUM = 200

NUMBER = re.compile(r"([-+]?)\s*(\d*)(?:\.(\d*))?(?:[eE]([-+]?\d{1,4}))?")
SIMPLE_FRACTION = re.compile(r"([-+]?)\s*(?:(\d+)\s*/\s*(\d+)|\\frac\s*\{\s*([-+]?\d+)\s*\}\s*\{\s*([-+]?\d+)\s*\})")
SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d+)?)\s*\\cdot\s*10\s*\^\s*\{\s*([-+]?\d{1,4})\s*\}")
REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{\s*(\d+)\s*\}")
MIXED = re.compile(
    r"(?<![\w.^}{)])(\d+)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(?<![\w.^}{)])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\w.])"
)
SLASH = re.compile(r"(?<![\w.^})!|])(\d+)\s*/\s*(\d+)(?![\d.!^])")
DECIMAL = re.compile(r"(\d+)\.(\d+)|(?<!\d)\.(\d+)|(\d+)\.(?!\d)")
DEGREES = re.compile(r"(\d+(?:\.\d+)?|\([^()]*\))\s*\^\\circ")
SCIENTIFIC_INSIDE = re.compile(r"(?<![a-zA-Z\\{_])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,3})(?!\w)")

READABLE = frozenset(
    r"frac sqrt cdot pi sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp binom choose infty pm mp"  # noqa: SIM905
    r" lfloor rfloor lceil rceil max min gcd lcm sum prod int lim to partial dotsm"
    r" alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon"
    r" phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell prime overline bar hat".split()
)
LIMIT = re.compile(r"\\(?:lim|sum|prod|int)(?![a-zA-Z])")
BOUND = re.compile(r"\\(?:sum|prod)\s*_\s*\{[^{}]*\}")
COMMAND = re.compile(r"\\([a-zA-Z]+)|\\(.)")
ODD = re.compile(r"[^\\a-zA-Z0-9+\-*/^_(){}\[\]|!., ']")
SIGNS = re.compile(r"(?:[-+!']\s*){5}")
DOUBLE_FACTORIAL = re.compile(r"(?<![\w.}])(\d{1,3})\s*!\s*!(?!\s*!)")
TWO_SCRIPTS = re.compile(r"\^\s*(?:\{[^{}]*\}|\w)\s*\^")
LETTER_ABOVE = re.compile(r"\^\s*([a-zA-Z])")
LETTERS = re.compile(r"(\\[a-zA-Z]+|(?<!_)(?<!_\{)[dEeIT])(?:\s*_\s*(?:\{([^{}]*)\}|(\w)))?")
VARIABLES = {
    "d": "d_{d%s}",
    "E": "J_{E%s}",
    "e": "J_{e%s}",
    "I": "J_{I%s}",
    "T": "J_{T%s}",
    r"\gamma": "g_{y%s}",
    r"\Gamma": "G_{y%s}",
}
"""Letters that the parser takes for a differential, a constant or a function, and names that it takes for variables."""
FACTORS_TOUCH = re.compile(
    r"(?<=[\d})!])\s*(?=\()|(?<=\))\s*(?=[\da-zA-Z\\])(?!\\(?:cdot|rfloor|rceil|to|pm|mp)(?![a-zA-Z]))|(?<=[a-eijl-zA-EH-OQ-Z])\s*(?=\()"
)
FUNCTION_CALL = re.compile(
    r"(\\(?:arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd|lcm|sum|prod|int|lim"
    r"|to|cdot|lfloor|lceil)"
    r"(?:_\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\w))?(?:\^\s*(?:\{[^{}]*\}|\w))?)\s*\\cdot\s*\("
)
GREEK_CALL = re.compile(
    r"(\\(?:pi|alpha|beta|theta|lambda|mu|omega|sigma|tau|rho|gamma|delta|epsilon|phi|varphi))\s*\("
)


class Unreadable(Exception):
    """The text is not mathematics that can be judged. The message says why in a few words."""


def fraction_of(text: str) -> Fraction | None:
    """The value of a plain numeral, a fraction or a product with a power of ten; None for anything else. Raises Unreadable
    for a division by zero."""
    text = text.strip()
    if (number := NUMBER.fullmatch(text)) and (number[2] or number[3]):
        value = Fraction(f"{number[2] or 0}.{number[3] or 0}") * Fraction(10) ** int(number[4] or 0)
        return -value if number[1] == "-" else value
    if simple := SIMPLE_FRACTION.fullmatch(text):
        over, under = (int(simple[2] or simple[4]), int(simple[3] or simple[5]))
        if under == 0:
            raise Unreadable("a division by zero")
        return Fraction(-over if simple[1] == "-" else over, under)
    if scientific := SCIENTIFIC.fullmatch(text):
        return Fraction(scientific[1]) * Fraction(10) ** int(scientific[2])
    return None


@lru_cache(maxsize=4096)
def expression(latex: str) -> sympy.Expr:
    """The expression in sympy. latex: in the notation of notation.plain, without unit, relation or list. Raises Unreadable."""
    if (number := fraction_of(latex)) is not None:
        return sympy.Rational(number.numerator, number.denominator)
    _refuse_large_binomials(latex)
    calls, latex = _without_calls(latex)
    text = _spelled_out(latex)
    try:
        read = latex2sympy(text, normalization_config=None, conversion_config=CONVERSION)
    except (MemoryError, RecursionError):
        raise
    except Exception as fault:
        raise Unreadable("the answer cannot be parsed") from fault
    if not isinstance(read, sympy.Expr):
        raise Unreadable("the answer is not an expression")
    _refuse_bombs(read)
    try:
        done = read.doit().subs(sympy.Symbol("i"), sympy.I).subs(calls)
    except (MemoryError, RecursionError):
        raise
    except Exception as fault:
        raise Unreadable("the answer cannot be evaluated") from fault
    if done.has(sympy.Float, sympy.zoo, sympy.nan):
        raise Unreadable("the answer has no exact value")
    if "\\infty" in latex and not LIMIT.search(latex) and done not in {sympy.oo, -sympy.oo}:
        raise Unreadable("the answer calculates with infinity")
    return done


def _without_calls(latex: str) -> tuple[dict[sympy.Symbol, sympy.Expr], str]:
    """f(x + 1) is a value of f, which the parser takes for a product; f(x) it reads. Here each call becomes a variable.

    Other letters may be factors: h(a + b)/2 is an area.
    """
    calls: dict[sympy.Symbol, sympy.Expr] = {}
    parts, end = [], 0
    for found in CALL.finditer(latex):
        if found.start() < end or (close := _closing(latex, found.end() - 1)) is None:
            continue
        inside = latex[found.end() : close]
        if re.fullmatch(r"[\w, ]*", inside) or "," in inside:
            continue
        name = f"C_{{{len(calls)}call}}"
        calls[sympy.Symbol(name)] = sympy.Function(found[1])(expression(inside.strip()))
        parts += [latex[end : found.start()], name]
        end = close + 1
    return calls, "".join([*parts, latex[end:]])


def _closing(text: str, opening: int) -> int | None:
    """Where the bracket at `opening` closes."""
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if depth == 0:
            return at
    return None


def _refuse_large_binomials(latex: str) -> None:
    """The parser works a binomial out at once, so that its size has to be known before. Raises Unreadable."""
    for found in BINOMIAL.finditer(latex):
        between = _closing(latex, found.end() - 1)
        if between is None or latex[between + 1 : between + 2] != "{":
            continue
        end = _closing(latex, between + 1)
        sides = latex[found.end() : between], latex[between + 2 : end]
        if any(re.search(r"(?<!\\)[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", side)) for side in sides):
            continue
        over, under = (expression(side.strip()) for side in sides)
        if over.is_Integer and under.is_Integer:
            chosen = min(abs(under), abs(over - under))
            if chosen > 0 and chosen * sympy.log(sympy.E * over / chosen, 2).evalf() > LARGEST_BINOMIAL_BITS:
                raise Unreadable("the answer holds a number that is too large")


def _spelled_out(latex: str) -> str:
    """In the way that math-verify's parser reads rightly: decimals as fractions, every product with its sign."""
    if not latex.strip():
        raise Unreadable("a part of the answer is empty")
    latex = REPEATING.sub(_repeating, latex)
    latex = DEGREES.sub(r"(\1 \\cdot \\frac{\\pi }{180})", latex)
    for command in COMMAND.finditer(latex):
        if command[1] not in READABLE:
            raise Unreadable(f"the answer has {command[0][:20]} in it")
    if odd := ODD.search(BOUND.sub("", latex)):
        raise Unreadable(f"the answer has {odd[0]!r} in it")
    if re.search(r"[\d)]\s*[_']|_\s*(?:\w|\{[^{}]*\})'|''", latex):
        raise Unreadable("an index or a prime stands where none can")
    level = depths(latex)
    if SIGNS.search(latex):
        raise Unreadable("too many signs in a row")
    if TWO_SCRIPTS.search(latex):
        raise Unreadable("two exponents on one base")
    if max(level) > DEEPEST or min(level) < 0:
        raise Unreadable("the answer's brackets are too deep or do not match")
    text = DOUBLE_FACTORIAL.sub(_double_factorial, latex)
    text = MIXED.sub(lambda m: rf"(({m[1] or m[4]})+\frac{{{m[2] or m[5]}}}{{{m[3] or m[6]}}})", text)
    text = SCIENTIFIC_INSIDE.sub(r"\1\\cdot 10^{\2}", text)
    text = SLASH.sub(r"\\frac{\1}{\2}", text)
    if re.search(r"\d\s+[\d.]|[\w})]\s*\.\d*\s*\d+\.\d", text) or re.search(r"\d\.\d+\.", text):
        raise Unreadable("numbers stand side by side")
    text = DECIMAL.sub(_decimal, text)
    text = LETTERS.sub(_as_variable, LETTER_ABOVE.sub(r"^{\1}", text))
    text = GREEK_CALL.sub(r"\1 \\cdot (", text)
    text = FACTORS_TOUCH.sub(r" \\cdot ", text)
    return FUNCTION_CALL.sub(r"\1(", text).replace("'", "_{p}")


def _repeating(found: re.Match[str]) -> str:
    whole, fixed, repeated = found[1], found[2], found[3]
    under = (10 ** len(repeated) - 1) * 10 ** len(fixed)
    over = int(whole + fixed + repeated) - int(whole + fixed or "0")
    return rf"\frac{{{over}}}{{{under}}}"


def _double_factorial(found: re.Match[str]) -> str:
    return str(math.prod(range(int(found[1]), 0, -2)))


def _as_variable(found: re.Match[str]) -> str:
    name, index = found[1], found[2] or found[3] or ""
    is_differential = name == "d" and re.search(r"\\int|\\partial|\\frac\s*\{\s*d", found.string)
    if name not in VARIABLES or is_differential or (name == "e" and not index):
        return found[0]
    return VARIABLES[name] % index


def _decimal(found: re.Match[str]) -> str:
    whole, decimals = found[1] or found[4] or "0", found[2] or found[3] or ""
    return rf"\frac{{{int(whole + decimals)}}}{{{10 ** len(decimals)}}}" if decimals else whole


def _refuse_bombs(read: sympy.Expr) -> None:
    """Raises Unreadable for a power, factorial or sum that would be too large. Evaluates nothing."""
    for node in sympy.preorder_traversal(read):
        if isinstance(node, sympy.Pow) and not node.has(sympy.Symbol) and _size(node) > LARGEST_BITS:
            raise Unreadable("the answer holds a number that is too large")
        if isinstance(node, sympy.factorial | sympy.binomial) and any(
            not argument.has(sympy.Symbol) and _size(argument) > 20 for argument in node.args
        ):
            raise Unreadable("the answer holds a number that is too large")
        if isinstance(node, sympy.Sum | sympy.Product) and any(
            bound.is_Integer and abs(bound) > LONGEST_SUM for limits in node.limits for bound in limits[1:]
        ):
            raise Unreadable("the answer holds a sum that is too long")
        if (
            isinstance(node, sympy.Integral | sympy.Limit | sympy.Derivative)
            and len(list(sympy.preorder_traversal(node))) > 60
        ):
            raise Unreadable("the answer holds an integral or limit that is too long")


def _size(number: sympy.Expr) -> float:  # noqa: PLR0911
    """An upper estimate of the number's bits."""
    if isinstance(number, sympy.Rational):
        return float(max(abs(number.p).bit_length(), number.q.bit_length()))
    if isinstance(number, sympy.Pow):
        exponent = number.exp
        if _size(exponent) > 40:
            return float("inf")
        try:
            return _size(number.base) * max(1.0, abs(float(exponent)))
        except (TypeError, OverflowError):
            return float("inf")
    if isinstance(number, sympy.factorial):
        size = _size(number.args[0])
        return float("inf") if size > 20 else size * 2**size
    if not number.args:
        return 2.0
    sizes = [_size(part) for part in number.args]
    return sum(sizes) if isinstance(number, sympy.Mul) else max(sizes) + len(sizes)
