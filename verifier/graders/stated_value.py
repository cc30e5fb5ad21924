"""Where a response without a box states its answer, and whether it states one answer or several: for `math` and `number` alike.

A statement begins behind the last "the answer is", "Answer:" or "A:", in any of the languages below, or behind ####. What it
begins with is the answer, unless the same sentence offers another candidate or denies the first.
"""

import re
from collections import deque

LANGUAGES = (
    r"(?:答案|答え|解答|正解|最终结果|得数)\s*(?:应该是|应该为|应是|应为|就是|是|为|為|は|が|[:=])*"
    r"|答\s*[:=]+|(?:정답|답)\s*(?:은|는|이|:)+"
    r"|ответ\w*\s*(?:[:=—–-]|равен|это)+"
    r"|(?:la\s+)?(?:r[ée]ponse|respuesta|risposta|resposta)(?:\s+(?:finale?|correcta|correcte|corretta|correta))?\s*(?:est|es|è|é|:|=)+"
    r"|(?:die\s+)?(?:antwort|lösung|ergebnis|antwoord|svaret|svar|jawaban(?:nya)?|cevap)"
    r"\s*(?:lautet|ist|is|är|er|adalah|:|=)+"
    r"|đáp\s+(?:án|số)\s*(?:là|:|=)+|odpowied[źz]\w*\s*(?:to|:|=)+|(?:الإجابة|الجواب)\s*(?:هي|هو|:)*|उत्तर\s*(?:है|[:=])*"
)
STATED = re.compile(
    r"(?:(?:final\s+answer|answer|result)(?:\s+(?:to|for)\s+[^.:\n]{1,60})?\s*(?:is|are|=|:)+"
    rf"|^[ \t]*+\**+[ \t]*+(?:ans|answer)\b[*:.)]*|^[ \t]*+\**+A\**:|####|{LANGUAGES})[\s*_:]*",
    re.IGNORECASE | re.MULTILINE,
)
FULL_WIDTH = str.maketrans("：＝，；（）", ":=,;()")
CHOICES = re.compile(r"^[ \t]*+\**+B\**[:.)]", re.MULTILINE)
"""With a B beside it, A: is a choice."""
MONEY = re.compile(
    r"(?<![A-Za-z\\{])(?:(?:US|AU|CA|NZ|HK|NT|SG|[ACS])\s?(?=\\?\$\s?\d)|\$\s?US(?:D)?(?=\s?\d)"
    r"|(USD|CAD|AUD|EUR|GBP|JPY|CNY|RMB|INR|KRW|Rs\.?)\s?\$?(?=\d))"
)
"""What stands before an amount of money beside its sign, or in its place: US$5, USD 5, Rs. 5."""
SIGNS = {"EUR": "€", "GBP": "£", "JPY": "¥", "CNY": "¥", "RMB": "¥", "INR": "₹", "Rs": "₹", "Rs.": "₹", "KRW": "₩"}
"""The sign of each code in MONEY that does not stand for dollars."""
NOISE = re.compile(r"<<[^<>\n]{0,200}>>|<\|\w{1,20}\|>|</s>|[✅✔☑🎉\ufe0f]")
"""What is no part of an answer: GSM8K's notes for a calculator, <<6*3=18>>; tokens that end a text; marks of joy."""
SENTENCE_END = re.compile(r"[.!?](?=\s|$|[\"')])|[。！？]|\n")
CANDIDATE = re.compile(r"(?<![A-Za-z0-9_^])(?<!\^\{)\$?\s?\d|\$\s?[\\\w({+-]|\\\(|\\boxed|\\frac")
REASON = re.compile(
    r"\b(?:since|because|as|which|where|so|due|from|with|after|given|using|by|means|out of|of|per|in|at|on|within|over|modulo"
    r"|mod|base|that|hence|thus|therefore|namely|counting|including|considering|who|than)\b|i\.e\.|^[\s$)*]*(?:=|≈|≡|\\approx|\\pmod)"
    r"|因为|由于|から|ので",
    re.IGNORECASE,
)
"""What shows, between two numbers, that the second belongs to an explanation of the first."""
BREAKDOWN = re.compile(
    r"[\s$)*]+(?!(?:or|and|maybe|perhaps|possibly|though|but|to|vs|versus|alternatively|either|also|could|might|else|not)\b)"
    r"[A-Za-z]{3,}(?:\s+[A-Za-z]+)?\s*[,:]\s*",
    re.IGNORECASE,
)
"""A noun and a comma: 72 clips, 48 in April and 24 in May."""
CASE = re.compile(r"\b(?:for|if|when)\b", re.IGNORECASE)
NOT_ANOTHER = re.compile(r"[\s$)*,;(]*(?:and\s+)?(?:not|rather than|instead of)\s+\$?[-\\(\d]", re.IGNORECASE)
DENIED = re.compile(
    r"\b(?:not|never|no|nope|wrong|incorrect|false|impossible|cannot|can't|isn't|mistaken|unlikely)\b|n't\b|[?？]|不对|不是|错|誤|ない",
    re.IGNORECASE,
)
OR = re.compile(r"\b(?:or|oder|ou|o|или|либо)\b|或|または|또는", re.IGNORECASE)
SECOND_THOUGHT = re.compile(
    r"[\s*$)]*(?:or|no|nope|alternatively|maybe|perhaps|possibly|sorry|correction|oops|i mean|rather|actually|else|otherwise)\b"
    r"[^.\n]{0,60}?\d",
    re.IGNORECASE,
)
LONGEST_LOOK = 400
RULED_OUT_BEFORE = re.compile(
    r"(?:不是|不等于|并非|\bnicht|\bpas|\bне|\bnon|\bnão|\bno\s+es)[\s$]*$|(?:\b(?:not|never|cannot)|n't)(?:\s+(?:be|equal|equals|the|to|answer|result|it)){0,3}[\s:$*\\(]*$",
    re.IGNORECASE,
)
ALTERNATIVE = re.compile(
    r"\d[\s$,%)\\*]*(?:\b(?:or|oder|ou|или)\b|或者?|または|또는)[\s$(\\*]*(?:maybe|perhaps|possibly|even)?[\s$(\\*]*$",
    re.IGNORECASE,
)
RULED_OUT_BEHIND = re.compile(
    r"[\s$*)\\]*(?:is|was|are|would be|seems)?\s*(?:not|n't|wrong|incorrect|impossible|false)\b"
    r"|[\s$*)]*(?:isn't|is not|不对|不是)",
    re.IGNORECASE,
)


def with_signs_of_money(text: str, dollar: str) -> str:
    """The text with the sign alone before each amount of money: `dollar` for US$ and USD, € for EUR."""
    return MONEY.sub(
        lambda found: "" if found[0][0] != "$" and found[1] is None else SIGNS.get(found[1] or "", dollar), text
    )


def last_statement(response: str) -> int | None:
    """Where the last statement begins; None without one."""
    found = deque(_statements(response), maxlen=1)
    return found[0] if found else None


def statements(response: str, most: int) -> list[int]:
    """Where the last `most` statements begin, in order."""
    return list(deque(_statements(response), maxlen=most))


def _statements(response: str) -> list[int]:
    text = response.translate(FULL_WIDTH)
    are_choices = CHOICES.search(text) is not None
    return [
        found.end()
        for found in STATED.finditer(text)
        if not (are_choices and found[0].lstrip(" \t\n*").startswith("A") and found[0].strip(" \t\n*_:") == "A")
    ]


def sentence_of(text: str) -> str:
    """The first sentence of a text, without the mark at its end."""
    end = SENTENCE_END.search(text)
    return text[: end.start()] if end else text


def is_denied(behind: str) -> bool:
    """Whether the text behind a candidate takes it back: 13 is wrong; 13? ; 13, no, 14."""
    end = SENTENCE_END.search(behind[:LONGEST_LOOK])
    sentence = behind[: end.start() + (behind[end.start()] in "?？") if end else LONGEST_LOOK]
    if NOT_ANOTHER.match(sentence) and not OR.search(sentence):
        return False
    explained = REASON.search(sentence)
    return DENIED.search(sentence[: explained.start()] if explained else sentence) is not None


def is_explained(behind: str) -> bool:
    """Whether the text behind a candidate begins to say why it is right, or which number it is not."""
    return REASON.match(behind.lstrip(" ,(*$")) is not None or NOT_ANOTHER.match(behind) is not None


def has_rival(behind: str) -> bool:
    """Whether the text behind a candidate offers another: 13 or 14; 13 to 14; 13, possibly 14; 13. Or 14."""
    look = behind[:LONGEST_LOOK]
    end = SENTENCE_END.search(look)
    sentence = look[: end.start()] if end else look
    if end and SECOND_THOUGHT.match(look, end.end()):
        return True
    if NOT_ANOTHER.match(sentence):
        return bool(OR.search(sentence))
    others = list(CANDIDATE.finditer(sentence.lstrip("$")))
    if not others:
        return False
    between = sentence.lstrip("$")[: others[0].start()]
    if CASE.search(between) and not OR.search(between):
        return len(others) > 2
    is_explanation = BREAKDOWN.fullmatch(between) or REASON.search(between)
    return OR.search(between) is not None or not is_explanation


def is_ruled_out(before: str, behind: str) -> bool:
    """Whether the words around a number say that it is not the answer: it cannot be 5; 5 is impossible."""
    return RULED_OUT_BEFORE.search(before[-60:]) is not None or RULED_OUT_BEHIND.match(behind[:60]) is not None


def is_alternative(before: str) -> bool:
    """Whether the text before a number offers another in its place: 13 or."""
    return ALTERNATIVE.search(before[-60:]) is not None
