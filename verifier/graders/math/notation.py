"""One way of writing for the many ways in which LaTeX, and models, write the same thing.

Only notation changes here, never meaning: styles, spaces and sizes go, synonyms become one command, thousands separators
and decimals become plain numbers, and units stay as \\text{}. Characters outside ASCII come first, then the rules of
notation_rules.py, then thousands separators.
"""

import html
import re
import unicodedata
from functools import lru_cache

from verifier.graders.math.characters import UNICODE
from verifier.graders.math.notation_rules import RULES, apply
from verifier.graders.math.tex import with_arguments, with_over
from verifier.graders.stated_value import with_signs_of_money

UNICODE_PATTERN = re.compile("|".join(UNICODE))
UNICODE_ROOT = re.compile(r"(?:√|(?<![a-zA-Z\\])sqrt)\s*(\d+(?:\.\d+)?|[a-zA-Z])|(?:√|(?<![a-zA-Z\\])sqrt)(?=\s*\()")
RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
LOWERED = re.compile(r"[₀₁₂₃₄₅₆₇₈₉ₐₙ]+")

ENTITY = re.compile(r"(?<!\\)&(?:[a-zA-Z][a-zA-Z0-9]{1,7}|#\d{1,5}|#x[0-9a-fA-F]{1,4});")
"""A character as HTML writes it, &le; for one."""
CURRENCY_COMMANDS = re.compile(r"\\(?:text)?(pounds|sterling|euro|yen)(?![a-zA-Z])")
COMMAND_SIGNS = {"pounds": "£", "sterling": "£", "euro": "€", "yen": "¥"}
MONEY_IN_TEXT = re.compile(
    r"\\(?:text|mathrm|textrm|mbox|operatorname)\s*\{\s*"
    r"((?:US|AU|CA|NZ|HK|NT|SG|[ACS])?\s*(?:\\?\$|[€£¥₹₩₽])|(?:USD|CAD|AUD|EUR|GBP|JPY|CNY|RMB|INR|KRW|Rs\.?))"
    r"(\s*[\d.,]*)\s*\}[\\,~ ]*"
)
CURRENCIES = {"€": "euros", "£": "sterling", "₹": "rupees", "¥": "yen", "₽": "rubles", "₩": "won"}
COMPILED_RULES = [(rule.compiled(), rule.replacement) for rule in RULES]
SYMPY_MATRIX = re.compile(
    r"(?<![a-zA-Z\\])(?:(?:sympy|sp)\.)?Matrix\(\s*\[\s*(?P<rows>\[[^\[\]()]*\](?:\s*,\s*\[[^\[\]()]*\])*|[^\[\]()]+)\s*\]\s*\)"
)
DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
SPACED_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?: \d{3})+)(?![\d.])")
GROUPED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")


@lru_cache(maxsize=4096)  # asked several times for one answer, and for the reference of every sample of a group
def plain(latex: str) -> str:
    """The same mathematics in our way of writing. Words in \\text{} stay, except that `and`, `or` and the names of functions
    become commands there too."""
    text = _in_ascii(ENTITY.sub(lambda entity: html.unescape(entity[0]), latex))
    text = SYMPY_MATRIX.sub(_matrix, text)
    if "\\begin" not in text:  # where there are no rows, two backslashes are one that was escaped
        text = DOUBLED.sub(r"\\", text)
    text = _with_currencies(text).strip(" *\n")
    text = with_over(text)
    for pattern, replacement in COMPILED_RULES:
        text = apply(pattern, replacement, text)
    text = with_arguments(text)
    return _with_joined_thousands(text).strip()


def _matrix(found: re.Match[str]) -> str:
    """sympy's matrix as LaTeX; a plain list is a column."""
    inner = found["rows"]
    rows = re.findall(r"\[([^\[\]]*)\]", inner) if inner.startswith("[") else inner.split(",")
    cells = r" \\ ".join(" & ".join(row.split(",")) for row in rows)
    return rf"\begin{{pmatrix}}{cells}\end{{pmatrix}}"


def _in_ascii(text: str) -> str:
    """Signs, roots, raised and lowered digits as commands; other characters in their compatibility form."""
    text = UNICODE_ROOT.sub(lambda root: rf"\sqrt{{{root[1]}}}" if root[1] else "\\sqrt", text)
    text = UNICODE_PATTERN.sub(lambda found: UNICODE[found[0]], text)
    text = RAISED.sub(lambda found: f"^{{{_folded(found[0])}}}", text)
    text = LOWERED.sub(lambda found: f"_{{{_folded(found[0])}}}", text)
    return unicodedata.normalize("NFKC", text)


def _with_currencies(text: str) -> str:
    """Signs of money as \\text{}; a dollar sign without a backslash only delimits mathematics."""
    text = CURRENCY_COMMANDS.sub(lambda found: COMMAND_SIGNS[found[1]], text)
    text = MONEY_IN_TEXT.sub(r" \1\2", text)
    text = with_signs_of_money(text, r"\$")
    text = text.replace(r"\$", r"\text{dollars}").replace("$", " ").replace("`", "")
    for sign, unit in CURRENCIES.items():
        text = text.replace(sign, rf"\text{{{unit}}}")
    return text


def _folded(script: str) -> str:
    return unicodedata.normalize("NFKC", script).replace("−", "-")


def depths(text: str) -> list[int]:
    """How many brackets of any kind are open at each character. They need not match: ]1, 2[ is an interval. Braces behind a
    backslash count like the others."""
    depth, result = 0, []
    for character in text:
        if character in ")]}":
            depth -= 1
        result.append(depth)
        if character in "([{":
            depth += 1
    return result


def _with_joined_thousands(text: str) -> str:
    """1,234 is a number outside brackets; inside them the comma separates. 1 234 is a number everywhere."""
    text = SPACED_THOUSANDS.sub(lambda found: found[0].replace(" ", ""), text)
    depth = depths(text)
    return GROUPED_THOUSANDS.sub(lambda found: found[0] if depth[found.start()] else found[0].replace(",", ""), text)
