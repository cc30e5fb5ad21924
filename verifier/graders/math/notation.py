"""One way of writing for the many ways in which LaTeX, and models, write the same thing.

Only notation changes here, never meaning: styles, spaces and sizes go, synonyms become one command, thousands separators
and decimals become plain numbers, and units stay as \\text{}.
"""

import re
import unicodedata

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

FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|lcm|max|min|det|deg"
RELATION_WORDS = {"and": r"\land ", "or": r"\lor "}

# Order matters: each step may rely on those before it.
STEPS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<!\\)\\$", ""),
        (r"\\left\s*\.|\\right\s*\.", ""),
        (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])", ""),
        (
            r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it|small|large|Large|LARGE|huge|Huge|normalsize)(?![a-zA-Z])",
            "",
        ),
        (r"(?<=\d)\s?,?(?:\\[,!;]|\\ |\s?\{\s*,\s*\}){1,2}\s?(?=\d{3}(?!\d))", ","),
        (r"(?<!\\)\\[,;:!> ]|~|\\quad|\\qquad|\\thinspace|\\enspace", " "),
        (r"(?<!\\)\\[()\[\]]", " "),
        (r"\\(?:boxed|fbox)\s*\{([^{}]*)\}", r"\1"),
        (r"\\(?:boxed|fbox)\s*(?=\{)", ""),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]binom", r"\\binom"),
        (r"\{([^{}]*)\\choose([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"\\(?:textbf|textit|textrm|textsf|texttt|textnormal|mbox|hbox|emph|textsc)\b", r"\\text"),
        (r"\\(?:mathbf|boldsymbol|bm|vec|mathit|mathsf|mathcal|overrightarrow)\s*\{([^{}]*)\}", r"\1"),
        (r"\\(?:mathbf|boldsymbol|bm|underline|(?:text)?color\s*\{[a-zA-Z]*\})\s*(?=\{)", ""),
        (r"^\\text\s*\{\s*([-+]?\d[\d.,/]*)\s+([^{}\d]+)\}$", r"\1\\text{ \2}"),
        (r"\\(overline|bar|dot)\s*(\d)", r"\\\1{\2}"),
        (r"\\(?:mathrm|operatorname\*?)\s*\{\s*([eid])\s*\}", r"{\1}"),
        (rf"\\(?:mathrm|operatorname\*?|text)\s*\{{\s*({FUNCTIONS})\s*\}}", r"\\\1 "),
        (r"\\(?:mathrm|operatorname\*?)\s*(?=\{)", r"\\text"),
        (r"\\leqslant|\\leq(?![a-zA-Z])|<=|\\leqq", r"\\le "),
        (r"\\geqslant|\\geq(?![a-zA-Z])|>=|\\geqq", r"\\ge "),
        (r"\\neq(?![a-zA-Z])|\\not\s*=|!=", r"\\ne "),
        (r"\\lt(?![a-zA-Z])|&lt;", "<"),
        (r"\\gt(?![a-zA-Z])|&gt;", ">"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\lvert|\\rvert|\\vert(?![a-zA-Z])|\\mid(?![a-zA-Z])", "|"),
        (r"\\lbrack", "["),
        (r"\\rbrack", "]"),
        (r"\\(?:varnothing|empty)(?![a-zA-Z])", r"\\emptyset "),
        (r"\\(?:backslash|smallsetminus)(?![a-zA-Z])", r"\\setminus "),
        (r"\\(?:infin|infty)(?![a-zA-Z])|(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
        (r"\\(?:times|ast)(?![a-zA-Z])", r"\\cdot "),
        (r"\*\*", "^"),
        (r"\*", r"\\cdot "),
        (r"\\div(?![a-zA-Z])", "/"),
        (r"\\colon(?![a-zA-Z])|\\ratio(?![a-zA-Z])", ":"),
        (r"\\simeq|\\cong(?![a-zA-Z])", r"\\approx "),
        (
            r"\\degree(?![a-zA-Z])|\^\s*\{?\s*\\circ\s*\}?|\\text\{\s*(?:degrees?|deg)\s*\}|(?<=\d)\s*degrees?\b",
            r"^\\circ ",
        ),
        (r"\\text\s*\{\s*,?\s*(?:for|where|with)(?: all| any| some)?\s*\}(?=\s*[a-zA-Z]\s*\\in)", ", "),
        (r"\\text\s*\{\s*,?\s*and\s*\}|\\wedge|\\land|\\&", r"\\land "),
        (r"\\text\s*\{\s*,?\s*or\s*\}|\\vee|\\lor", r"\\lor "),
        (r"(?<![a-zA-Z\\])and(?![a-zA-Z])", r"\\land "),
        (r"(?<![a-zA-Z\\])or(?![a-zA-Z])", r"\\lor "),
        (
            r"\\text\s*\{\s*(?:percent|percentage|pct|\\?%)\s*\}|(?<=\d)\s*(?:percent(?:age)?|pct)\b|(?<=\})\s*percent\b",
            r"\\%",
        ),
        (r"(?<!\\)%", r"\\%"),
        (r"\\text\s*\{\s*([-+]?[\d.,/]+)\s*\}", r"\1"),
        (rf"(?<![a-zA-Z\\])({FUNCTIONS}|pi|sqrt|infty)(?![a-zA-Z])", r"\\\1 "),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\d)", r"\\frac\1{\2}"),
        (r"\\log\s*_\s*([0-9a-zA-Z])", r"\\log_{\1}"),
        (r"\^\s*\(([^()]*)\)", r"^{\1}"),
        (r"\^\s*(-?\d+(?:\.\d+)?)", r"^{\1}"),
        (r"\s+", " "),
    ]
]
DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
SPACED_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?: \d{3})+)(?![\d.])")
GROUPED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")


def plain(latex: str) -> str:
    """The same mathematics in our way of writing. Texts in \\text{} keep their words."""
    text = UNICODE_ROOT.sub(lambda root: rf"\sqrt{{{root[2] or root[1]}}}", latex)
    text = UNICODE_PATTERN.sub(lambda found: UNICODE[found[0]], text)
    text = RAISED.sub(lambda found: f"^{{{_folded(found[0])}}}", text)
    text = LOWERED.sub(lambda found: f"_{{{_folded(found[0])}}}", text)
    text = unicodedata.normalize("NFKC", text)
    if "\\begin" not in text:  # where there are no rows, two backslashes are one that was escaped
        text = DOUBLED.sub(r"\\", text)
    text = text.replace(r"\$", r"\text{dollars}").replace("$", " ").replace("`", "").strip(" *\n")
    for sign, unit in (("€", "euros"), ("£", "pounds"), ("₹", "rupees"), ("¥", "yen")):
        text = text.replace(sign, rf"\text{{{unit}}}")
    for pattern, replacement in STEPS:
        text = pattern.sub(replacement, text)
    text = _join_thousands(text)
    return text.strip()


def _folded(script: str) -> str:
    return unicodedata.normalize("NFKC", script).replace("−", "-")


def depths(text: str) -> list[int]:
    """How many brackets of any kind are open at each character. Brackets need not match: ]1, 2[ is an interval.
    A backslash's braces count like the others."""
    depth, result = 0, []
    for character in text:
        if character in ")]}":
            depth -= 1
        result.append(depth)
        if character in "([{":
            depth += 1
    return result


def _join_thousands(text: str) -> str:
    """1,234 is a number outside brackets; inside them the comma separates. 1 234 is one everywhere."""
    text = SPACED_THOUSANDS.sub(lambda found: found[0].replace(" ", ""), text)
    depth = depths(text)
    return GROUPED_THOUSANDS.sub(lambda found: found[0] if depth[found.start()] else found[0].replace(",", ""), text)
