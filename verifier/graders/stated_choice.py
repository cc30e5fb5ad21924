"""How responses state a choice in words: "the answer is C", "Answer: C", "C is correct", and what in such a statement counts."""

import re
from collections import deque

LONGEST = 300
"""Characters that are read of a statement."""
LONGEST_READ = 2000
"""Characters of a statement in which letters are looked for, where its beginning and end are marked."""
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
BEFORE = rf"(?<![^\W{_CJK}])(?<![\\'\u2019.])"
"""Before a letter that stands alone: Chinese, Japanese and Korean write no spaces."""
BEHIND = rf"(?![^\W{_CJK}])(?!['\u2019]\w)(?!\.\d)"

_NOUN = r"(?:answer|choice|option|response|selection|letter)"
_IS = r"(?:is|are|was|would be|should be|must be|will be|has to be|seems to be|appears to be|=)"
_ENGLISH = (
    rf"\b{_NOUN}\b(?:\s+(?:choice|option|letter))?(?:\s+(?:here|to\s+(?:the|this)\s+question|then|therefore|thus))?\s+{_IS}(?!\w)\s*:?"
    rf"|(?<![A-Za-z])(?:answer|solution|(?:correct|right|best|final|my)\s+{_NOUN}|choice|selection)[\"'*_\s]{{0,8}}(?:[:\uff1a=\u2192]|-+>)"
    r"|(?:^|\n)[#*_ \t]{0,8}(?:response|letter|option)[*_ \t]{0,8}[:\uff1a]|(?:^|\n)[#*_ \t]{0,8}ans(?:[ \t]{0,4}[:\uff1a=]|\.)"
    rf"|(?:^|\n)[#*_ \t]{{0,8}}(?:final[ \t]{{1,4}})?answer[*_: \t]{{0,8}}\n"
    rf"|(?:^|\n)[#*_ \t]{{0,8}}(?:(?:the|my)[ \t]{{1,4}})?"
    rf"(?:correct|right|best|final)?[ \t]{{0,4}}(?:answer|choice)[ \t]{{0,4}}[-\u2013\u2014]\s*"
    rf"|\bI(?:'ll|'d|\u2019ll|\u2019d| will| would| have to| must)?\s+(?:choose|pick|select|opt for|answer(?: with)?)(?!\w)"
)
_OTHERS = (
    # Chinese and Japanese
    r"(?:\u7b54\u6848|\u6b63\u89e3|\u6b63\u786e\u9009\u9879|\u6b63\u786e\u7684\u662f|\u6b63\u78ba\u9078\u9805|\u7b54\u3048)"
    r"(?:\u5e94\u8be5|\u61c9\u8a72|\u5e94|\u61c9)?\s*(?:[:\uff1a]|\u662f|\u4e3a|\u70ba|\u9009|\u9078|\u306f)+\s*[:\uff1a]?"
    r"|\u7b54\s*[:\uff1a]|(?<![\u4e0d\u672a\u522b\u975e\u52ff\u53ef\u591a])(?<!\u4e0d\u5e94)(?<!\u4e0d\u80fd)(?<!\u4e0d\u4f1a)(?<!\u4e0d\u5e94\u8be5)\u9009(?:\u62e9)?(?=\s*[*(]{0,3}[A-Z0-9](?![A-Za-z0-9]))"
    r"|\u6b63\u786e\u7684\u662f\s*[:\uff1a]?(?=\s*[*(]{0,3}[A-Z0-9])"
    r"|(?<!\u4e0d)(?:\u6545|\u5e94|\u6240\u4ee5|\u56e0\u6b64|\u61c9)\s*(?:\u9009\u62e9|\u9078\u64c7|\u9009|\u9078)(?:\u9879)?\s*[:\uff1a]?"
    # Korean
    r"|(?:\uc815\ub2f5|\ub2f5)\s*(?:\uc740|\ub294|:|\uff1a)\s*:?"
    # German, French, Spanish, Italian, Portuguese, Dutch, Russian
    r"|\bantwort\w*(?:\s+(?:ist|lautet|w\u00e4re)\b\s*:?|\s*:)|\bl\u00f6sung\s*(?:ist\b|:)|\brichtig\s+ist\b"
    r"|\br\u00e9ponse(?:\s+(?:correcte|exacte|finale))?(?:\s+est\b\s*:?|\s*:)"
    r"|\b(?:respuesta|opci\u00f3n)(?:\s+(?:correcta|final))?(?:\s+es\b\s*:?|\s*:)"
    r"|\brisposta(?:\s+(?:corretta|giusta|esatta))?(?:\s+\u00e8|\s*:)"
    r"|\b(?:resposta|alternativa|op\u00e7\u00e3o)(?:\s+(?:correta|certa|final))?(?:\s+\u00e9|\s*:)"
    r"|\bantwoord(?:\s+is\b|\s*:)"
    r"|(?:\u043e\u0442\u0432\u0435\u0442|\u041e\u0442\u0432\u0435\u0442)(?:\u043e\u043c)?\s*(?:[:\uff1a\u2014\u2013-]|\u044f\u0432\u043b\u044f\u0435\u0442\u0441\u044f|\u0431\u0443\u0434\u0435\u0442)+"
)
_STATED = re.compile(f"{_ENGLISH}|{_OTHERS}", re.IGNORECASE)
_CORRECT = re.compile(
    rf"(?<!statement )(?<!assertion )(?<!claim )(?<!neither )(?<!nor )(?<!if ){BEFORE}\(?([A-Z0-9])\)?\s+is\s+"
    rf"(?:the\s+)?(?:(?:only\s+)?(?:correct|right|best|true)(?:\s+{_NOUN})?|(?:correct\s+)?{_NOUN})"
    r"(?=\s{0,8}(?:$|[.,;:!)\n*]|because\b|since\b|as\b|here\b))",
    re.IGNORECASE,
)
_CORRECT_ELSEWHERE = re.compile(
    rf"{BEFORE}\(?([A-Z0-9])\)?\s*(?:(?:\u9009\u9879|\u9078\u9805|\u9879)?\s*(?:\u662f|\u4e3a|\u70ba)?\s*(?:\u6b63\u786e|\u6b63\u78ba|\u5bf9\u7684)"
    r"(?!\u7684?\u5417|\u6027)|(?:\u304c|\u306f)\s*(?:\u6b63\u89e3|\u6b63\u3057\u3044)(?!\u3067\u306f|\u304f\u306a)|(?:\uac00|\uc774)\s*(?:\uc815\ub2f5|\ub9de))"
)
"""C \u6b63\u786e, in Chinese, Japanese and Korean."""
_CONCLUDED = re.compile(
    r"[\s#>*_\-\u2013]*(?:(?:so|thus|therefore|hence|then|finally|consequently|accordingly)\b[\s,:]*"
    r"|[=-]+>\s*|[\u21d2\u2192\u2234]\s*)?(?:(?:it|this|that)(?:['\u2019]s|\s+(?:is|must\s+be|has\s+to\s+be|should\s+be))\s+"
    r"|(?:we|I)(?:['\u2019](?:d|m|ll)|\s+(?:am|would|will|are))?\s+(?:go|going)\s+(?:for|with)\s+|(?:choose|select|pick)\s+"
    r"|the\s+(?:solution|(?:correct|right|best)\s+one)\s+(?:is|must\s+be|would\s+be)\s*:?\s*)?"
    rf"(?:the\s+)?(?:{_NOUN}\s+)?(?:it\s+is\s+)?(?=[*_(\[\"'$]{{0,4}}[A-Z0-9]{BEHIND})",
    re.IGNORECASE,
)
"""What may stand before the letter in a line that concludes: Therefore, it must be."""
_LEFT = re.compile(
    r"\b(?:(?:left|leaves\s+us)\s+with|leaves|leaving|corresponds?\s+to|matches|which\s+is|that\s+is|matching|corresponding\s+to)"
    rf"\s+(?:only\s+)?(?:the\s+)?(?:{_NOUN}\s+)?[*(]{{0,3}}([A-Z0-9])[*)]{{0,3}}\s*\.?[\s*]*$",
    re.IGNORECASE,
)
"""The end of a last line that names the letter: which corresponds to option C."""
_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).){0,300}?)</answer>", re.DOTALL | re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*")
DECORATION = re.compile(r"\\(?:text|textbf|mathbf|mathrm|textrm|mbox|rm|bf)\b|[{}$*_`\\]")
_NEGATED = re.compile(
    r"\s*(?:it\s+)?(?:is\s+)?(?:not|neither|none|isn't|never|unclear|unknown)\b"
    r"(?!\s+\(?[A-Z0-9]\)?\s*,?\s+(?:but|it\s+is|it['\u2019]s)\b)",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:not|neither|nor|none|never|unlikely|except|but|unclear|unknown)\b|n['\u2019]t\b|[!\u00ac]\s*\(?[A-Za-z]\b",
    re.IGNORECASE,
)
_DENIED_IN_TEX = re.compile(r"\\(?:neg|lnot|not|sim|overline|bar|cancel|xcancel|bcancel|sout|complement)(?![a-zA-Z])")
_BEHIND_LETTER = re.compile(r"\s*(?:\^|'(?!\w))")
_LETTER = re.compile(r"^\W*[a-z](?![A-Za-z'])|(?<![A-Za-z'\\])[A-Z](?![A-Za-z'])|(?<![A-Za-z])[A-Z](?=')")
_ONE = rf"(?:(?:option|choice|answer|letter)\s+)?\(?{BEFORE}[A-Z0-9]{BEHIND}\)?"
_SEVERAL = rf"{_ONE}(?:\s*(?:,|or|nor|and|/)\s*{_ONE}){{0,8}}"
_INSTEAD = re.compile(
    rf"\bnot\s+{_SEVERAL}\s*[,;]?\s+(?:but|it\s+is|it['\u2019]s)\b(?:\s+rather)?|\bnot\s+{_SEVERAL}\s*[,;]\s*(?=\(?[A-Z0-9]{BEHIND})",
    re.IGNORECASE,
)
_REJECTED = re.compile(
    rf"[\s,;(]*\b(?:and\s+not|but\s+not|not|rather\s+than|instead\s+of|unlike|over|as\s+opposed\s+to)\s+{_SEVERAL}\)?",
    re.IGNORECASE,
)
_RULED_OUT = re.compile(
    rf"(?:\b(?:either|both)\s+)?{_SEVERAL}\s+(?:is|are|was|were|can(?:not|['\u2019]t)\s+be|would\s+be|must\s+be|seems?)\s+"
    r"(?:(?:all|both|clearly|definitely|obviously|also)\s+)?(?:wrong|incorrect|false|impossible|eliminated|ruled\s+out|excluded|out"
    r"|not\s+(?:correct|right|true|possible|the\s+answer)|(?<=not\sbe\s)(?:correct|right|true)|(?<=t\sbe\s)(?:correct|right|true))\b"
    r"\s*[,;:]?\s*(?:(?:so|hence|thus|therefore|and|leaving)\b\s*)?"
    rf"|{BEFORE}[A-Z](?:\u9009\u9879|\u9879)?\s*\u662f?(?:\u4e0d\u5bf9|\u4e0d\u6b63\u786e|\u9519\u8bef|\u9519\u7684|\u6709\u8bef)\u7684?[,\uff0c]?",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"(?<!\w)['\u2018]([A-Za-z0-9])['\u2019](?!\w)")
_SENTENCE_END = re.compile(r"\n|[.;!?\u3002\uff01\uff1f](?=\s|$)|[\u3002\uff01\uff1f]")
_CORRECTED = re.compile(
    r"\s*(?:or|and|no|wait|actually|sorry|correction|hmm|rather|maybe|perhaps|alternatively|but|however)\b",
    re.IGNORECASE,
)
_REASON = re.compile(
    r",?\s*\b(?:because|since|as|given|due\s+to|so\s+that|which|where|while|whereas|for\s+the\s+reason|considering|based\s+on|that\s+is)\b",
    re.IGNORECASE,
)
FIRST = re.compile(rf"[\s(\[]*([A-Za-z0-9]){BEHIND}[\s)\].:,-]*(.*)", re.DOTALL)
"""A statement that begins with a letter: the letter, and what follows it."""
ONLY = re.compile(
    rf"[\s#>*_(\[\"'$-]*(?:(?:option|choice|answer|letter)\s+)?[(\[*]*([A-Za-z0-9]){BEHIND}(?:[*_\"'$\s]*([)\].:,\u3002]|$|\s[-\u2013\u2014]\s))?",
    re.IGNORECASE,
)
"""A line that begins with a letter: the letter, and the sign that sets it apart from what follows."""
_PRONOUN = re.compile(r"(?<![\w'])I\s+(?:[a-z']|['\u2019])")
_ARTICLE = re.compile(r"(?<![\w'])A [a-z]")


def tagged(response: str) -> str | None:
    """What stands between the last <answer> tags."""
    found = deque(_TAGGED.finditer(response), maxlen=1) if "<answer>" in response.lower() else None
    return found[0][1].strip() if found else None


def stated(response: str) -> str | None:
    """The statement behind the last "the answer is"; empty if it is a denial."""
    found = deque(_STATED.finditer(response), maxlen=1)
    if not found:
        return None
    rest = response[found[0].end() : found[0].end() + LONGEST].lstrip(' :*\n"')
    for taken_back in (_INSTEAD, _RULED_OUT):
        if (first := taken_back.match(rest)) and rest[first.end() :].lstrip()[:1].isalnum():
            rest = rest[first.end() :].lstrip()
    if _NEGATED.match(rest):
        return ""
    rest = rest.partition("**")[0]  # the answer was in bold up to there
    end = _SENTENCE_END.search(rest, 2)
    return rest[: end.start()] if end else rest


def called_correct(response: str) -> str | None:
    """The letter of the last "C is correct"."""
    for form in (_CORRECT, _CORRECT_ELSEWHERE):
        if found := deque(form.finditer(response), maxlen=1):
            return found[0][1]
    return None


def left(line: str) -> str | None:
    """The letter at the end of a last line such as "which corresponds to option C"."""
    found = _LEFT.search(line[-LONGEST:])
    return found[1] if found else None


def without_lead(line: str) -> str:
    """A line without what may stand before the letter that it concludes with."""
    found = _CONCLUDED.match(line)
    rest = line[found.end() :] if found else ""
    return rest if rest.lstrip(" *_([\"'$")[:1].isupper() or rest[:1] in "([" else line


def bold(response: str) -> list[str]:
    """What stands in bold."""
    return [found[1] for found in _BOLD.finditer(response)]


def split(text: str) -> tuple[str, str]:
    """A statement without the sentence or the reason that follows its letter, and the beginning of that sentence, which may be
    the choice's text: "C. Rome". A sentence that takes the letter back stays."""
    named = FIRST.match(text)
    if named is None:
        return text, ""
    behind = ""
    point = named.end(1)
    if text[point : point + 1] == ")":
        point += 1
    if re.match(r"[.;!?\u3002]\s", text[point:]) and not _CORRECTED.match(text, point + 1):
        behind = text[point + 1 :].strip()
        end = _SENTENCE_END.search(behind)
        text, behind = text[:point], behind[: end.start()] if end else behind
    reason = _REASON.search(text, named.end(1))
    return (text[: reason.start()] if reason else text), behind


def without_rejected(text: str) -> str:
    """A statement without the letters that it rejects: "not B but C", "C, not B", "C rather than B"."""
    text = _RULED_OUT.sub("", _INSTEAD.sub("", _QUOTED.sub(r"\1", text)))
    found = _LETTER.search(text)
    return text[: found.end()] + _REJECTED.sub("", text[found.end() :]) if found else text


def denies(text: str) -> bool:
    """Whether the statement says what the answer is not, before its first letter or around it."""
    letter = _LETTER.search(text)
    before = text[: letter.end()] if letter else text
    return _DENIED.search(before) is not None or (
        letter is not None and _BEHIND_LETTER.match(text, letter.end()) is not None
    )


def denies_in_tex(text: str) -> bool:
    """Whether TeX strikes the letter out or negates it."""
    letter = _LETTER.search(text)
    before = text[: letter.end()] if letter else text
    return _DENIED_IN_TEX.search(before) is not None


def words_of_one_letter(text: str) -> set[str]:
    """Letters that are words here: the pronoun I, and the article A behind something else."""
    found = set()
    if _PRONOUN.search(text):
        found.add("I")
    if not re.match(r"[\s(\[]*A\b", text) and _ARTICLE.search(text):
        found.add("A")
    return found
