"""One way of writing for the many ways in which LaTeX, and models, write the same thing.

Only notation changes here, never meaning: styles, spaces and sizes go, synonyms become one command, thousands separators
and decimals become plain numbers, and units stay as \\text{}. Characters outside ASCII come first, then the rules of
notation_rules.py, then thousands separators.
"""

import re
import unicodedata

from verifier.graders.math.notation_rules import RULES

# Before the compatibility forms are folded: a superscript would become a digit.
UNICODE = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}",
    "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}",
    "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}", "\u200b": "", "\ufeff": "", "\u00ad": "",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "ℝ": r"\mathbb{R}", "′": "'",
    "⟨": "(", "⟩": ")", "…": r"\ldots ", "，": ",", "：": ":",
}  # fmt: skip
UNICODE_PATTERN = re.compile("|".join(UNICODE))
UNICODE_ROOT = re.compile(r"(?:√|(?<![a-zA-Z\\])sqrt)\s*(\d+(?:\.\d+)?|[a-zA-Z]|\(([^()]*)\))")
RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
LOWERED = re.compile(r"[₀₁₂₃₄₅₆₇₈₉ₐₙ]+")

CURRENCIES = {"€": "euros", "£": "pounds", "₹": "rupees", "¥": "yen"}
COMPILED_RULES = [(re.compile(rule.pattern), rule.replacement) for rule in RULES]
DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
SPACED_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?: \d{3})+)(?![\d.])")
GROUPED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")


def plain(latex: str) -> str:
    """The same mathematics in our way of writing. Words in \\text{} stay, except that `and`, `or` and the names of functions
    become commands there too."""
    text = _in_ascii(latex)
    if "\\begin" not in text:  # where there are no rows, two backslashes are one that was escaped
        text = DOUBLED.sub(r"\\", text)
    text = _with_currencies(text).strip(" *\n")
    for pattern, replacement in COMPILED_RULES:
        text = pattern.sub(replacement, text)
    return _with_joined_thousands(text).strip()


def _in_ascii(text: str) -> str:
    """Signs, roots, raised and lowered digits as commands; other characters in their compatibility form."""
    text = UNICODE_ROOT.sub(lambda root: rf"\sqrt{{{root[2] or root[1]}}}", text)
    text = UNICODE_PATTERN.sub(lambda found: UNICODE[found[0]], text)
    text = RAISED.sub(lambda found: f"^{{{_folded(found[0])}}}", text)
    text = LOWERED.sub(lambda found: f"_{{{_folded(found[0])}}}", text)
    return unicodedata.normalize("NFKC", text)


def _with_currencies(text: str) -> str:
    """Signs of money as \\text{}; a dollar sign without a backslash only delimits mathematics."""
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
