"""The rules by which notation.py rewrites LaTeX, in order, each with an example.

A rule changes how something is written, never what it says. The order matters: `before` names later rules that would make
something else of the example if they came first. The tests run every example and every such pair.
"""

import re
from typing import NamedTuple

FUNCTIONS = (
    "arc(?:sin|cos|tan|cot|sec|csc)|sinh|cosh|tanh|coth|sin|cos|tan|cot|sec|csc|log|lg|ln|exp|gcd|lcm|max|min|det|deg"
)
PROGRAM_FUNCTIONS = "abs|floor|ceil|cbrt|factorial|binomial|Rational"
TEXT = r"\\text\s*+\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}"

ACCENTED = r"\u00c0-\u024f\u1e00-\u1eff"
OTHER_WORD = rf"(?:[a-zA-Z]*[{ACCENTED}][a-zA-Z{ACCENTED}]*|(?:[^\W\d_a-zA-Z{ACCENTED}]|[\u0900-\u0eff])+)"
"""A word that holds letters outside ASCII; beside Chinese letters, those of ASCII are mathematics."""


class Rule(NamedTuple):
    name: str
    example: str
    becomes: str
    """What this rule alone makes of the example."""
    pattern: str
    replacement: str
    before: tuple[str, ...] = ()
    """Rules that must come later, because the order changes what becomes of the example."""
    words: bool = False
    """The rule is about words that stand free, and leaves those within \\text{} alone."""

    def compiled(self) -> re.Pattern[str]:
        return re.compile(f"{self.pattern}|(?P<kept>{TEXT})" if self.words else self.pattern)

    def apply(self, text: str) -> str:
        return apply(self.compiled(), self.replacement, text)


def apply(pattern: re.Pattern[str], replacement: str, text: str) -> str:
    """pattern: of Rule.compiled. What its group `kept` takes stays as it is."""
    if "kept" not in pattern.groupindex:
        return pattern.sub(replacement, text)
    return pattern.sub(lambda found: found[0] if found["kept"] is not None else found.expand(replacement), text)


# fmt: off
RULES = (
    Rule("power before the base of a logarithm", r"\log^2_3 x", r"\log_3^2 x",
         r"\\log\s*\^\s*(\{[^{}]*\}|[0-9a-zA-Z])\s*_\s*(\{[^{}]*\}|[0-9a-zA-Z])", r"\\log_\2^\1"),
    Rule("letter before a noun", r"y\text{-axis}", r"\text{y-axis}",
         r"(?<![a-zA-Z\\])([a-zA-Z])\s*\\text\s*\{\s*-(axis|axes|intercept|coordinate|direction|plane)\s*\}", r"\\text{\1-\2}"),
    Rule("environments with a star", r"\begin{align*}", r"\begin{align}",
         r"\\(begin|end)\s*\{([a-zA-Z]+)\*\}", r"\\\1{\2}", before=("product in code",)),
    Rule("circled numbers in text", r"\text{\textcircled{2}}", r"\textcircled{2}",
         r"\\text\s*\{((?:\s*\\textcircled\{\d+\}[\s,]*)+)\}", r"\1"),
    Rule("space between columns", r"\begin{array}{l@{\quad}l}", r"\begin{array}{ll}",
         r"(?<=[lcr|{])@\s*\{[^{}]*\}", ""),
    Rule("stray backslash at the end", "5\\", "5",
         r"(?<!\\)\\$", ""),
    Rule("invisible delimiters", r"\left. x \right|", r" x \right|",
         r"\\left\s*\.|\\right\s*\.", "", before=("sizes of brackets",)),
    Rule("sizes of brackets", r"\left( 1, 2 \right)", "( 1, 2 )",
         r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])", ""),
    Rule("styles without braces", r"\displaystyle \frac{1}{2}", r" \frac{1}{2}",
         r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it|small|large|Large|LARGE|huge|Huge|normalsize)(?![a-zA-Z])",
         ""),
    Rule("spaced thousands", r"14,\!916", "14,916",
         r"(?<=\d)\s?,?(?:\\[,!;]|\\ |\s?\{\s*,\s*\}){1,2}\s?(?=\d{3}(?!\d))", ",", before=("spaces",)),
    Rule("decimal comma in braces", r"0{,}5", "0.5",
         r"(?<=\d)\s?\{\s*,\s*\}\s?(?=\d)", "."),
    Rule("spaces", r"2\,x", "2 x",
         r"(?<!\\)\\[,;:!> ]|~|\\quad|\\qquad|\\thinspace|\\enspace", " "),
    Rule("brackets of mathematics mode", r"\( x \)", "  x  ",
         r"(?<!\\)\\[()\[\]]", " "),
    Rule("boxes", r"\fbox{5}", "5",
         r"\\(?:boxed|fbox)\s*\{([^{}]*)\}", r"\1", before=("boxes with braces inside",)),
    Rule("boxes with braces inside", r"\boxed{\frac{1}{2}}", r"{\frac{1}{2}}",
         r"\\(?:boxed|fbox)\s*(?=\{)", ""),
    Rule("left angle bracket", r"\langle 1, 2 )", "( 1, 2 )",
         r"\\langle(?![a-zA-Z])", "("),
    Rule("right angle bracket", r"( 1, 2 \rangle", "( 1, 2 )",
         r"\\rangle(?![a-zA-Z])", ")"),
    Rule("sizes of fractions", r"\dfrac12", r"\frac12",
         r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    Rule("sizes of binomials", r"\dbinom{5}{2}", r"\binom{5}{2}",
         r"\\[dt]binom", r"\\binom"),
    Rule("styles of text", r"\textbf{yes}", r"\text{yes}",
         r"\\(?:textbf|textit|textrm|textsf|texttt|textnormal|mbox|hbox|emph|textsc)\b", r"\\text"),
    Rule("style of one letter", r"\vec a", r"\vec{a}",
         r"\\(mathbf|boldsymbol|bm|vec|mathit|mathsf|mathcal|mathrm)\s+([a-zA-Z0-9])", r"\\\1{\2}",
         before=("styles of letters",)),
    Rule("styles of letters", r"\cdot\mathbf{v}", r"\cdot v",
         r"\\(?:mathbf|boldsymbol|bm|vec|mathit|mathsf|mathcal|overrightarrow)\s*\{([^{}]*)\}", r" \1",
         before=("styles with braces inside",)),
    Rule("styles with braces inside", r"\boldsymbol{\frac{1}{2}}", r"{\frac{1}{2}}",
         r"\\(?:mathbf|boldsymbol|bm|underline|(?:text)?color\s*\{[a-zA-Z]*\})\s*(?=\{)", ""),
    Rule("number and unit in one text", r"\text{5 cm}", r"5\text{ cm}",
         r"^\\text\s*\{\s*([-+]?\d[\d.,/]*)\s+([^{}\d]+)\}$", r"\1\\text{ \2}"),
    Rule("upright constants", r"\mathrm{e}^2", "{e}^2",
         r"\\(?:mathrm|operatorname\*?)\s*\{\s*([eid])\s*\}", r"{\1}", before=("upright words",)),
    Rule("upright functions", r"\operatorname{lcm}(4, 6)", r"\lcm (4, 6)",
         rf"\\(?:mathrm|operatorname\*?|text)\s*\{{\s*({FUNCTIONS})\s*\}}", r"\\\1 ",
         before=("functions without backslash",)),
    Rule("upright functions with another name", r"\operatorname{arsinh} 1", r"\arsinh  1",
         r"\\(?:mathrm|operatorname\*?|text)\s*\{\s*(cosec|tg|ctg|cotg|arctg|arcctg|arc?(?:sin|cos|tan)h)\s*\}",
         r"\\\1 "),
    Rule("upright words", r"\mathrm{cm}", r"\text{cm}",
         r"\\(?:mathrm|operatorname\*?)\s*(?=\{)", r"\\text"),
    Rule("modulus in text", r"2 \text{ (mod 5)}", r"2 \pmod{5}",
         r"\\text\s*\{\s*\(?\s*mod(?:ulo)?\s+(\w+)\s*\)?\s*\}", r"\\pmod{\1}", before=("modulus in brackets",)),
    Rule("modulus in brackets", r"2 (\text{mod } 5)", r"2 \pmod{ 5}",
         r"\(\s*(?:\\text\s*\{\s*mod(?:ulo)?\s*\}|\\b?mod(?![a-zA-Z])|(?<![a-zA-Z\\])mod(?:ulo)?(?![a-zA-Z]))([^()]*)\)",
         r"\\pmod{\1}", before=("modulus without brackets",)),
    Rule("modulus without brackets", r"2 \bmod 5", r"2 \pmod{5}",
         r"(?:\\text\s*\{\s*mod(?:ulo)?\s*\}|\\b?mod(?![a-zA-Z])|(?<![a-zA-Z\\])mod(?:ulo)?(?![a-zA-Z]))\s*"
         r"(\d+|[a-zA-Z](?![a-zA-Z]))", r"\\pmod{\1}"),
    Rule("at most", r"x \leq 2", r"x \le  2",
         r"\\leqslant|\\leq(?![a-zA-Z])|<=|\\leqq", r"\\le "),
    Rule("at least", "x >= 2", r"x \ge  2",
         r"\\geqslant|\\geq(?![a-zA-Z])|>=|\\geqq", r"\\ge "),
    Rule("not equal", r"x \neq 2", r"x \ne  2",
         r"\\neq(?![a-zA-Z])|\\not\s*=|!=", r"\\ne "),
    Rule("less than", r"x \lt 2", "x < 2",
         r"\\lt(?![a-zA-Z])|&lt;", "<"),
    Rule("greater than", "x &gt; 2", "x > 2",
         r"\\gt(?![a-zA-Z])|&gt;", ">"),
    Rule("left brace", r"\lbrace 1 \}", r"\{ 1 \}",
         r"\\lbrace(?![a-zA-Z])", r"\\{"),
    Rule("right brace", r"\{ 1 \rbrace", r"\{ 1 \}",
         r"\\rbrace(?![a-zA-Z])", r"\\}"),
    Rule("braces behind a function", r"\min\{a, b\}", r"\min(a, b)",
         r"\\(min|max|gcd|lcm)\s*\\\{([^{}]*)\\\}", r"\\\1(\2)"),
    Rule("bars", r"\lvert x \rvert", "| x |",
         r"\\lvert|\\rvert|\\vert(?![a-zA-Z])|\\mid(?![a-zA-Z])", "|"),
    Rule("left square bracket", r"\lbrack 1, 2)", "[ 1, 2)",
         r"\\lbrack", "["),
    Rule("right square bracket", r"(1, 2\rbrack", "(1, 2]",
         r"\\rbrack", "]"),
    Rule("empty set", r"\varnothing", r"\emptyset ",
         r"\\(?:varnothing|empty)(?![a-zA-Z])", r"\\emptyset "),
    Rule("set difference", r"A \backslash B", r"A \setminus  B",
         r"\\(?:backslash|smallsetminus)(?![a-zA-Z])", r"\\setminus "),
    Rule("infinity", "(0, inf)", r"(0, \infty )",
         r"\\(?:infin|infty)(?![a-zA-Z])|(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty ", words=True),
    Rule("product sign", r"2 \times 3", r"2 \cdot  3",
         r"\\(?:times|ast)(?![a-zA-Z])", r"\\cdot "),
    Rule("power in code", "2**3", "2^3",
         r"\*\*", "^", before=("product in code", "exponent without braces")),
    Rule("product in code", "2*3", r"2\cdot 3",
         r"\*", r"\\cdot "),
    Rule("division sign", r"6 \div 2", "6 / 2",
         r"\\div(?![a-zA-Z])", "/"),
    Rule("colon", r"1 \colon 2", "1 : 2",
         r"\\colon(?![a-zA-Z])|\\ratio(?![a-zA-Z])", ":"),
    Rule("about", r"x \simeq 2", r"x \approx  2",
         r"\\simeq|\\cong(?![a-zA-Z])", r"\\approx "),
    Rule("degrees", r"90^{\circ}", r"90^\circ ",
         r"\\degree(?![a-zA-Z])|\^\s*\{\s*o\s*\}"
         r"|\^\s*\{?\s*\\circ\s*\}?|\\text\{\s*(?:degrees?|deg)\s*\}|(?<=\d)\s*degrees?\b", r"^\\circ ",
         words=True),
    Rule("condition", r"k\pi \text{ for all } k \in \mathbb{Z}", r"k\pi ,  k \in \mathbb{Z}",
         r"\\text\s*\{\s*,?\s*(?:for|where|with)(?: all| any| some)?\s*\}(?=\s*[a-zA-Z]\s*\\in)", ", "),
    Rule("several numbers in text", r"\text{2 or 3}", "2 or 3",
         r"\\text\s*\{((?:\s*[-+]?\d[\d.,/]*+\s*(?:and|or|,|;))++\s*[-+]?\d[\d.,/]*\s*)\}", r"\1"),
    Rule("and in text", r"1 \text{ and } 2", r"1 \land  2",
         r"\\text\s*\{\s*,?\s*and\s*\}|\\wedge|\\land|\\&", r"\\land "),
    Rule("or in text", r"1 \text{ or } 2", r"1 \lor  2",
         r"\\text\s*\{\s*,?\s*or\s*\}|\\vee|\\lor", r"\\lor "),
    Rule("and", "1 and 2", r"1 \land  2",
         r"(?<![a-zA-Z\\])and(?![a-zA-Z])|(?<=[\da-zA-Z)}\]\s])[和及且と](?=[\s\da-zA-Z\\({\[+-])", r"\\land ", words=True),
    Rule("or", "1 or 2", r"1 \lor  2",
         r"(?<![a-zA-Z\\])or(?![a-zA-Z])|(?<=[\da-zA-Z)}\]\s])(?:或者?|または)(?=[\s\da-zA-Z\\({\[+-])", r"\\lor ", words=True),
    Rule("percent in words", "50 percent", r"50\%",
         r"\\text\s*\{\s*(?:percent|percentage|pct|\\?%)\s*\}|(?<=\d)\s*(?:percent(?:age)?|pct)\b|(?<=\})\s*percent\b", r"\\%",
         words=True),
    Rule("bare percent sign", "50%", r"50\%",
         r"(?<!\\)%", r"\\%"),
    Rule("number in text", r"\text{12}", "12",
         r"\\text\s*\{\s*([-+]?[\d.,/]+)\s*\}", r"\1"),
    Rule("absolute value in code", "Abs(x)", "abs(x)",
         r"(?<![a-zA-Z\\])Abs(?=\s*\()", "abs", before=("functions without backslash",)),
    Rule("ceiling in code", "ceiling(x)", "ceil(x)",
         r"(?<![a-zA-Z\\])ceiling(?=\s*\()", "ceil", before=("functions without backslash",)),
    Rule("inverse functions in code", "asin(x)", "arcsin(x)",
         r"(?<![a-zA-Z\\])a(sin|cos|tan)(?=\s*\()", r"arc\1", before=("functions without backslash",)),
    Rule("functions without backslash", "27 min", r"27 \min ",
         rf"(?<![a-zA-Z\\])({FUNCTIONS}|{PROGRAM_FUNCTIONS}|pi|sqrt|infty)(?![a-zA-Z])", r"\\\1 ",
         before=("units named like functions",), words=True),
    Rule("units named like functions", r"27 \min", r"27 \text{ min}",
         r"(?<!^)(?<!\\land )(?<!\\land  )(?<!\\lor )(?<!\\lor  )\\(min|sec)(?![a-zA-Z])\s*"
         r"(?=(?:\^\s*\{?\s*-?\d\s*\}?\s*)?(?:$|[,;.=<>+\-/})&]|per\b|\\(?:text|land|lor|cdot)(?![a-zA-Z])))",
         r"\\text{ \1}"),
    Rule("degrees named like a function", r"90 \deg", r"90 ^\circ ",
         r"\\deg(?![a-zA-Z])(?!\s*[({a-zA-Z\\])", r"^\\circ "),
    Rule("logarithm to base ten", r"\lg 100", r"\log_{10} 100",
         r"\\lg(?![a-zA-Z])", r"\\log_{10}"),
    Rule("tangent", r"\tg x", r"\tan x",
         r"\\tg(?![a-zA-Z])", r"\\tan"),
    Rule("cotangent", r"\ctg x", r"\cot x",
         r"\\c(?:o?tg|tan)(?![a-zA-Z])", r"\\cot"),
    Rule("arc tangent", r"\arctg x", r"\arctan x",
         r"\\arctg(?![a-zA-Z])", r"\\arctan"),
    Rule("arc cotangent", r"\arcctg x", r"\arccot x",
         r"\\arcc(?:o?tg|tan)(?![a-zA-Z])", r"\\arccot", before=("inverse functions that the parser does not know",)),
    Rule("inverse hyperbolic functions", r"\arsinh x", r"\sinh^{-1} x",
         r"\\arc?(sinh|cosh|tanh)(?![a-zA-Z])", r"\\\1^{-1}"),
    Rule("cosecant", r"\cosec x", r"\csc x",
         r"\\cosec(?![a-zA-Z])", r"\\csc"),
    Rule("inverse functions that the parser does not know", r"\arccot x", r"\cot^{-1} x",
         r"\\arc(cot|sec|csc)(?![a-zA-Z])", r"\\\1^{-1}"),
    Rule("unit in brackets", r"27 (\text{min})", r"27 \text{min}",
         r"(?<=[\d}])\s*\(\s*(\\text\s*\{\s*[a-zA-Z/ ]+\})\s*\)$", r" \1"),
    Rule("ordinal number in text", r"\text{5th}", "5",
         r"\\text\s*\{\s*(\d+)(?:st|nd|rd|th)\s*\}", r"\1"),
    Rule("ordinal numbers", r"12^{\text{th}}", "12",
         r"(?<=\d)\s*(?:\^\s*\{\s*\\text\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}|\^\s*\{\s*(?:st|nd|rd|th)\s*\}"
         r"|\^?\s*\\text(?:superscript)?\s*\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)(?![a-zA-Z]))", "", words=True),
    Rule("exponent without braces", "x^-12", "x^{-12}",
         r"\^\s*(-?\d+(?:\.\d+)?)", r"^{\1}"),
    Rule("words of other languages", "0.4吨", r"0.4\text{ 吨}",
         rf"({OTHER_WORD}(?:[ ]{OTHER_WORD})*)", r"\\text{ \1}", words=True),
    Rule("functions multiplied", r"\ln 2 \cdot \ln 3", r"\ln( 2 )\cdot \ln 3",
         rf"(\\(?:{FUNCTIONS})(?![a-zA-Z])(?:\s*_\s*(?:\{{[^{{}}]*\}}|\w))?(?:\s*\^\s*(?:\{{[^{{}}]*\}}|\w))?)"
         rf"((?:[^()\[\]{{}}+\-=,;:<>|&/\\!]|\\(?!(?:cdot|land|lor|text|{FUNCTIONS})(?![a-zA-Z]))[a-zA-Z]+|\{{[^{{}}]*\}})+?)"
         rf"\\cdot(?=\s*(?:\\(?:{FUNCTIONS})(?![a-zA-Z])|e\s*\^))", r"\1(\2)\\cdot"),
    Rule("white space", "1  +  2", "1 + 2",
         r"\s+", " "),
)
# fmt: on
