"""Units around a number: which there are, and where the number between them begins and ends.

A unit may be left out or added, but not contradicted: 5 cm equals 5, and not 5 m. A word that is not a unit here is a noun
and says nothing (12 apples), unless it changes the amount (5 million). Without \\text{}, a single letter is not a unit: 5m is
a product.
"""

import re
from decimal import Decimal
from typing import NamedTuple

from verifier.graders.math.expression import Unreadable

SPELLINGS = {
    "dm": "dm decimeter decimeters decimetre decimetres 分米",
    "mm": "mm millimeter millimeters millimetre millimetres 毫米",
    "cm": "cm centimeter centimeters centimetre centimetres cms 厘米 公分 センチメートル",
    "m": "m meter meters metre metres 米 metros mètres метров",
    "km": "km kilometer kilometers kilometre kilometres kms 千米 公里 キロメートル",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "s": "s sec secs second seconds 秒 秒間 segundos",
    "am": "am",
    "pm": "pm",
    "min": "min mins minute minutes 分钟 分鐘 分間 minutos минут",
    "h": "h hr hrs hour hours 小时 小時 時間 часов часа horas heures",
    "day": "day days 天 日",
    "week": "week weeks 周",
    "month": "month months 个月",
    "year": "year years yr yrs 年",
    "mg": "mg milligram milligrams",
    "g": "g gram grams gm 克 グラム",
    "kg": "kg kilogram kilograms kgs 千克 公斤 キログラム",
    "lb": "lb lbs",
    "oz": "oz ounce ounces",
    "ton": "ton tons tonne tonnes 吨 噸 トン",
    "ml": "ml mL milliliter milliliters millilitre millilitres 毫升",
    "l": "l L liter liters litre litres 升 リットル",
    "gallon": "gallon gallons gal",
    "mi/h": "mph",
    "km/h": "kph kmh kmph",
    "dollar": "dollar dollars usd USD CAD AUD",
    "cent": "cent cents",
    "euro": "euro euros EUR",
    "pound": "pound pounds",
    "sterling": "sterling gbp GBP",
    "ruble": "ruble rubles rouble roubles рублей рубля рубль",
    "won": "won krw KRW",
    "rupee": "rupee rupees rs INR",
    "yuan": "yuan 元 块 rmb RMB CNY",
    "yen": "yen 円 日元 JPY",
    "radian": "radian radians rad",
    "degree": "degree degrees deg 度",
    "celsius": "c celsius",
    "fahrenheit": "f fahrenheit",
    "joule": "j joule joules",
    "newton": "n newton newtons",
    "watt": "w watt watts",
    "hz": "hz hertz",
    "cm^2": "平方厘米",
    "m^2": "平方米",
    "km^2": "平方千米 平方公里",
    "cm^3": "立方厘米",
    "m^3": "立方米",
}
CANONICAL = {spelling: unit for unit, spellings in SPELLINGS.items() for spelling in spellings.split()}
SQUARE, CUBIC = {"square", "squared", "sq"}, {"cubic", "cubed", "cu"}

PARTS = frozenset(
    "tens halves thirds fourths quarters fifths sixths sevenths eighths ninths tenths elevenths twelfths thirteenths fourteenths"  # noqa: SIM905
    " fifteenths sixteenths twentieths hundredths"
    " thousandths millionths billionths lakh lakhs crore crores gross bn mn factorial pi e i mod modulo base".split()
)
"""Words that make a part or a multiple of the number: 5 tenths is not 5."""
AMOUNTS = PARTS | frozenset(
    "hundred thousand million billion trillion dozen score half third quarter twice double couple pair pairs squared cubed"  # noqa: SIM905
    " hundreds thousands millions billions dozens not no minus plus times about approximately approx roughly nearly almost"
    " least most more less fewer below than over under between to or and either both if when where for remainder"
    " possibly maybe else otherwise but unless except is are equals infinity percent lor land"
    " root negative inverse reciprocal"
    " repeating recurring wrong incorrect false never none neither nor"
    " millones mil mille millionen milliarden milliards tausend".split()
)
FOREIGN_AMOUNT = re.compile(r"[万萬亿億千百十兆半双打만억천백]|[不没非错无]|тысяч|милли|млн|млрд|ない")
"""How a word of another language begins that changes the amount or denies it: 3万 is not 3."""
PRODUCTS = frozenset({"mg", "rs", "ml", "mi", "am", "pm"})
"""Units that may also be a product of letters: \\frac{1}{2}mg is not half a milligram."""
LONGEST_UNIT = 6  # words and signs, such as "kilometers per hour"
TRAILING_TEXT = re.compile(
    r"(?:\\text\s*+\{[^{}]*+(?:\{-?\d\}[^{}]*+)*+\}(?:\s*+\^\s*+\{?\s*+-?\d\s*+\}?)?\s*+(?:/|\\cdot)?\s*+)++$"
)
TEXT_PART = re.compile(r"\\text\s*\{([^{}]*+(?:\{-?\d\}[^{}]*+)*+)\}(?:\s*\^\s*\{?\s*(-?\d)\s*\}?)?\s*(/|\\cdot)?")
TRAILING_WORDS = re.compile(
    r"(?<=[\d)} ])(?<![a-zA-Z\\])([a-zA-Z]{2,}(?:[ /]{1,3}[a-zA-Z]+){0,4})(?:\s*\^\s*\{?\s*([23])\s*\}?)?$"
)
SMALLER = {
    ("h", "min"): 60, ("min", "s"): 60, ("day", "h"): 24, ("week", "day"): 7, ("year", "month"): 12, ("ft", "in"): 12,
    ("yd", "ft"): 3, ("lb", "oz"): 16, ("m", "cm"): 100, ("km", "m"): 1000, ("kg", "g"): 1000, ("dollar", "cent"): 100,
}  # fmt: skip
"""Units of which one is so many of the other, that stand side by side: 5 feet 6 inches."""
COMPOUND = re.compile(
    r"(\d{1,9})\s*\\?(?:text\s*\{\s*)?([a-zA-Z]+)\.?(?:\s*,?\s*and)?[\s,]*\}?\s*(?:\\text\s*\{\s*and\s*\}\s*)?(\d{1,9}(?:\.\d{1,9})?)"
    r"\s*\\?(?:text\s*\{\s*)?([a-zA-Z]+)\.?\s*\}?"
)
LEADING_MONEY = re.compile(r"([-+]?)\s*\\text\{(dollars|euros|sterling|rupees|yen|rubles|won)\}")
SCALE = re.compile(r"\^\\circ\s*(?:\\text\{\s*)?([CF])(?:elsius|ahrenheit)?\s*\}?$")

FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")


class Measured(NamedTuple):
    number: str
    unit: str = ""
    """Its name among the keys of SPELLINGS, with powers and quotients: cm^2, km/h. Empty without a unit, or for a noun."""
    percent: bool = False
    degrees: bool = False


def without_unit(text: str) -> Measured:
    """The number and what stands around it. Raises Unreadable for words that change the amount."""
    text = text.strip()
    unit = ""
    if (compound := COMPOUND.fullmatch(text)) and (both := _in_the_smaller(*compound.groups())):
        return both
    if money := LEADING_MONEY.match(text):
        text, unit = money[1] + text[money.end() :].strip(), CANONICAL[money[2]]
    if scale := SCALE.search(text):
        return Measured(text[: scale.start()].strip(), "celsius" if scale[1] == "C" else "fahrenheit")
    words: list[tuple[str, str]] = []
    if (found := TRAILING_TEXT.search(text)) and found.start():
        joint = ""
        for part in TEXT_PART.finditer(found[0]):
            joint = joint or ("per " if words and (part[2] or "").startswith("-") else "")
            power = (part[2] or "").lstrip("-" if joint else "").replace("1", "")
            words.append((joint + part[1].replace("\\", ""), power))
            joint = "per " if part[3] == "/" else ""
        text = text[: found.start()].strip()
        if text.endswith("/"):
            text, words = text[:-1], [("per " + words[0][0], words[0][1]), *words[1:]]
    elif (found := TRAILING_WORDS.search(text)) and _is_bare_unit(
        found[1],
        apart=text[found.start() - 1].isspace(),
        behind_digit=text[: found.start()].rstrip()[-1:].isdigit(),
    ):
        words.append((found[1], found[2] or ""))
        text = text[: found.start()].strip()
    if words:
        unit = _canonical(words) or unit
    if text.endswith("\\%"):
        return Measured(text[:-2].strip(), unit, percent=True)
    if text.endswith("^\\circ") and not FUNCTION.search(text):
        return Measured(text[: text.rindex("^")].strip(), unit, degrees=True)
    if unit == "degree":
        return Measured(text, "", degrees=True)
    return Measured(text, unit)


def _in_the_smaller(number: str, unit: str, rest: str, smaller: str) -> Measured | None:
    """12 minutes and 30 seconds as 750 seconds; None for units that do not stand side by side, and for 12 minutes 75 seconds."""
    pair = CANONICAL.get(unit.lower(), ""), CANONICAL.get(smaller.lower(), "")
    factor = SMALLER.get(pair)
    if factor is None or Decimal(rest) >= factor:
        return None
    return Measured(str(int(number) * factor + Decimal(rest)), pair[1])


def units_agree(one: str, other: str) -> bool:
    """Whether two units are the same. Pounds may be a weight or money."""
    return one == other or any(
        re.sub(r"\bpound\b", meant, one) == re.sub(r"\bpound\b", meant, other) for meant in ("lb", "sterling")
    )


def _is_bare_unit(words: str, *, apart: bool, behind_digit: bool) -> bool:
    """Whether words without \\text{} are a unit, or a noun apart from its number. 5abc and 5 abc are products.

    apart: white space before them. behind_digit: a digit before them.
    """
    first = re.split(r"[ /]", words)[0]
    if first in PRODUCTS and not behind_digit:
        return False
    return first in CANONICAL or first in SQUARE or first in CUBIC or (apart and len(first) >= 4)


def _canonical(words: list[tuple[str, str]]) -> str:
    """One name for the unit, such as cm^2 or km/h; empty for a noun. words: each with its power. Raises Unreadable."""
    parts, known = [], True
    for text, power in words:
        tokens = re.findall(r"[^\W\d_]+|/|\^\{?\d\}?|\d+", text.replace(".", ""))
        if any(token.isdigit() for token in tokens) or len(tokens) > LONGEST_UNIT:
            raise Unreadable("more than a unit stands behind the answer")
        divided = not {"/", "per"}.isdisjoint(tokens)  # then the power is that of the last one: m/s^2
        exponent, named = "" if divided else power, ""
        for token in tokens:
            word = token if token in CANONICAL else token.lower()
            if word in {"squared", "cubed"} and not named:
                raise Unreadable(f"the word {word!r} stands behind the answer")
            if word in SQUARE | CUBIC:
                exponent = "2" if word in SQUARE else "3"
            elif word in AMOUNTS or (word not in CANONICAL and FOREIGN_AMOUNT.match(word)) or token in {"k", "M", "B"}:
                raise Unreadable(f"the word {word!r} stands behind the answer")
            elif word in {"/", "per"}:
                parts.append(named + (f"^{exponent}" if exponent else "") + "/")
                named, exponent = "", power
            elif token.startswith("^"):
                exponent = token.strip("^{}")
            elif word in CANONICAL:
                named += CANONICAL[word]
            else:
                known = False
        parts.append(named + (f"^{exponent}" if exponent and exponent != "1" else ""))
        known = known and bool(named)
    return "".join(parts) if known else ""
