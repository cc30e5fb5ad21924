"""What TeX takes for an argument and for a group: \\frac12, x^\\frac12, {1 \\over 2}, { 2 }.

TeX gives a command the next token where no braces stand: \\frac ab is a over b. \\over and \\choose take all of their group.
Braces that are no argument only group: they go, or become brackets where they hold a sum. Texts go through twice: with_over
before the rules of notation_rules.py, because \\left and \\right make a group too, and with_arguments behind them. Both take
time linear in the length of the text, and leave alone what is nested deeper than any answer that can be read.
"""

import re

from verifier.graders.math.notation_rules import FUNCTIONS, TEXT

TOKEN = re.compile(
    rf"{TEXT}|\\begin\s*\{{[^{{}}]*\}}(?:\s*\{{[^{{}}]*\}})?|\\end\s*\{{[^{{}}]*\}}|\\[a-zA-Z]+|\\.|\s+|.", re.DOTALL
)
DEEPEST = 60
ARGUMENTS = {"\\frac": 2, "\\binom": 2, "\\sqrt": 1} | dict.fromkeys(
    ("\\overline", "\\underline", "\\bar", "\\hat", "\\dot", "\\tilde", "\\mathbb", "\\pmod", "\\textcircled"), 1
)
OPENING = {"{": "}", "(": ")", "[": "]"}
INFIX = {"\\over": "\\frac", "\\choose": "\\binom", "\\atop": "\\binom"}
CALLS = {
    "\\abs": "|{}|",
    "\\floor": "\\lfloor {}\\rfloor ",
    "\\ceil": "\\lceil {}\\rceil ",
    "\\cbrt": "\\sqrt[3]{{{}}}",
    "\\factorial": "({})!",
    "\\binomial": "\\binom{{{}}}{{{}}}",
    "\\Rational": "\\frac{{{}}}{{{}}}",
}
"""Functions of program text, which rules gave a backslash, in the way that LaTeX writes them."""
TAKES_A_GROUP = re.compile(rf"\\(?:{FUNCTIONS}|arccot|sum|prod|int|lim|mathrm|operatorname|color|boxed|not|phantom)")
"""Commands behind which braces are no group of their own: \\sin{x}."""
BEFORE_A_SIDE = re.compile(
    r"(?:^|[=<>,;(\[|&]|\\[{]|\\(?:le|ge|ne|in|approx|equiv|land|lor|to|cup|cap|setminus)(?![a-zA-Z]))\s*$"
)
BEHIND_A_SIDE = re.compile(
    r"\s*(?:$|[=<>,;)\]|&}]|\\[}\\]|\\(?:le|ge|ne|in|approx|equiv|land|lor|cup|cap|setminus)(?![a-zA-Z])|\\text\s*\{)"
)
SUM = re.compile(r"[+-]|\\pm|\\mp")
SEPARATE = re.compile(r"[=<>,;&]|\\(?:le|ge|ne|in|approx|equiv|land|lor)(?![a-zA-Z])|\\\\")


def with_over(text: str) -> str:
    """{a \\over b} as \\frac{a}{b}, {n \\choose k} as \\binom{n}{k}: each takes all of its group, or of its cell."""
    if not any(infix in text for infix in INFIX):
        return text
    groups = [_Group()]
    for token in TOKEN.findall(text):
        if token in {"{", "\\left"} or token.startswith("\\begin"):
            groups.append(_Group())
            groups[-1].before = token
        elif (token in {"}", "\\right"} or token.startswith("\\end")) and len(groups) > 1:
            closed = groups.pop()
            groups[-1].parts.append(closed.before + closed.whole() + token)
        elif token in INFIX:
            groups[-1].infixes.append((len(groups[-1].parts), INFIX[token]))
            groups[-1].parts.append(token)
        elif token in {"&", "\\\\"}:
            groups[-1].end_cell(token)
        else:
            groups[-1].parts.append(token)
    while len(groups) > 1:  # a group that nothing closes, which no reader takes
        left_open = groups.pop()
        groups[-1].parts.append(left_open.before + left_open.whole())
    return groups[0].whole()


class _Group:
    """A group that is being read: the tokens of its present cell, and the cells before it."""

    def __init__(self) -> None:
        self.before = ""
        self.cells = ""
        self.parts: list[str] = []
        self.infixes: list[tuple[int, str]] = []

    def end_cell(self, separator: str) -> None:
        self.cells = self.whole() + separator
        self.parts = []
        self.infixes = []

    def whole(self) -> str:
        if len(self.infixes) != 1:
            return self.cells + "".join(self.parts)
        at, command = self.infixes[0]
        delimiter = ""
        parts = self.parts
        if self.before == "\\left" and at and not self.cells:  # the bracket behind \left is no part of the numerator
            delimiter, parts, at = parts[0], parts[1:], at - 1
        return f"{self.cells}{delimiter}{command}{{{''.join(parts[:at])}}}{{{''.join(parts[at + 1 :])}}}"


def with_arguments(text: str) -> str:
    """Every argument in braces, and no other braces. Text that is nested too deep stays as it is."""
    depth = deepest = 0
    for character in text:
        depth += (character in "{(") - (character in "})")
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        return text
    return re.sub(r"\s+", " ", _Walk(text).whole()).strip()


def _ends_of_brackets(tokens: list[str]) -> dict[int, int]:
    """Where each bracket that closes stands, by where it opens: braces, round and square ones, within the same braces."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for at, token in enumerate(tokens):
        if token in OPENING:
            opened.append(at)
        elif token == "}":
            while opened and tokens[opened[-1]] != "{":
                opened.pop()
            if opened:
                ends[opened.pop()] = at
        elif token in {")", "]"} and opened and OPENING[tokens[opened[-1]]] == token:
            ends[opened.pop()] = at
    return ends


class _Walk:
    """One pass over the tokens of a text."""

    def __init__(self, text: str) -> None:
        self._tokens = [token for token in TOKEN.findall(text) if token]
        self._at = 0
        self._ends = _ends_of_brackets(self._tokens)

    def whole(self) -> str:
        return self.sequence(len(self._tokens))

    def sequence(self, end: int) -> str:
        """What stands before the token at `end`, which is taken as well."""
        written: list[str] = []
        takes_a_group = False
        while self._at < end:
            token = self._tokens[self._at]
            self._at += 1
            if token.isspace():
                written.append(" ")
                continue
            if token in "^_":
                while written and written[-1].isspace():
                    written.pop()
                written.append(token + self._script(token, written))
                continue  # what stands before the script still decides: \sin^{2}{x}
            if token == "{" and (closes := self._ends.get(self._at - 1)):
                content = self.sequence(closes)
                written.append(f"{{{content}}}" if takes_a_group else self._grouped(content, written))
            else:
                written.append(self._with_arguments(token))
            takes_a_group = TAKES_A_GROUP.fullmatch(token) is not None
        self._at = end + 1
        return "".join(written)

    def _bracketed(self, opening: str) -> str | None:
        """What stands in the brackets that come next. None where other tokens do, or nothing closes them."""
        if self._next() != opening or (closes := self._ends.get(self._at)) is None:
            return None
        self._at += 1
        return self.sequence(closes)

    def _with_arguments(self, token: str) -> str:
        if token in CALLS and (content := self._bracketed("(")) is not None:
            places = CALLS[token].count("{}")
            given = content.split(",") if places > 1 else [content]
            return CALLS[token].format(*given) if len(given) == places else f"{token}({content})"
        option = ""
        if token == "\\sqrt" and (degree := self._bracketed("[")) is not None:
            option = f"[{degree}]"
        return token + option + "".join(self._argument() for _ in range(ARGUMENTS.get(token, 0)))

    def _next(self) -> str:
        """The next token that is no white space; empty at the end."""
        while self._at < len(self._tokens) and self._tokens[self._at].isspace():
            self._at += 1
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _argument(self) -> str:
        """The next argument in braces. Empty where there is none, which no reader takes."""
        token = self._next()
        if token in {"", "}", ")", "&", "\\\\"}:
            return ""
        if (content := self._bracketed(token)) is not None:
            return f"{{{content}}}"
        self._at += 1
        return f"{{{self._with_arguments(token)}}}"

    def _script(self, sign: str, written: list[str]) -> str:
        """What stands behind ^ or _. Single digits and letters below stay as they are, but below a logarithm."""
        token = self._next()
        if token == "\\circ":
            self._at += 1
            return "\\circ "
        if token == "\\prime":
            self._at += 1
            return "{\\prime}"
        if sign == "_" and written and written[-1] == "\\log" and token == "1" and self._following(1) == "0":
            self._at += 2
            return "{10}"
        is_letter = token.isalnum() and len(token) == 1
        if token in {"{", "("} or token.startswith("\\") or (is_letter and (sign == "^" or written[-1:] == ["\\log"])):
            return self._argument()
        return ""

    def _following(self, places: int) -> str:
        at = self._at + places
        return self._tokens[at] if at < len(self._tokens) else ""

    def _grouped(self, content: str, written: list[str]) -> str:
        """What becomes of braces that are no argument."""
        inside = content.strip()
        if inside.count("(") != inside.count(")"):
            return f"{{{content}}}"
        is_list = SEPARATE.search(inside)
        is_side = BEFORE_A_SIDE.search("".join(written[-3:]).rstrip() if written else "") and BEHIND_A_SIDE.match(
            "".join(self._tokens[self._at : self._at + 3])
        )
        if is_list:
            return f"{{{content}}}"
        if is_side or inside in {"+", "-"} or not SUM.search(inside):
            before, behind = "".join(written[-1:])[-1:], "".join(self._tokens[self._at : self._at + 1])[:1]
            return " " * before.isalnum() + inside + " " * behind.isalnum()
        return f"({inside})"
