"""Whole numbers by their remainders: x \\equiv 1, 3 \\pmod{4}."""

import math
import re

from verifier.graders.math.expression import Unreadable, expression
from verifier.graders.math.forms import Answer, Congruence, Many, SetOf, Value
from verifier.graders.math.reader import Grammar
from verifier.graders.math.structure import name_of, top_level

MODULUS = re.compile(r"\\pmod\s*\{([^{}]*)\}\s*$")
SIGN = re.compile(r"\\equiv(?![a-zA-Z])|=")
LARGEST_MODULUS = 10_000
"""Up to which remainders by different moduli are compared one by one."""


def is_congruence(text: str) -> bool:
    """One modulus, and it stands behind everything."""
    return text.count("\\pmod") == 1 and MODULUS.search(text) is not None and len(top_level(SIGN, text)) < 2


def congruence(text: str, grammar: Grammar) -> Answer:
    found = MODULUS.search(text)
    assert found is not None
    residues = text[: found.start()].strip().rstrip(",").rstrip()
    name = ""
    for sign in top_level(SIGN, residues):
        name, residues = name_of(residues[: sign.start()]), residues[sign.end() :].strip()
    read = grammar.whole(residues)
    items = read.items if isinstance(read, Many | SetOf) else (read,)
    numbers = [item.expr for item in items if isinstance(item, Value)]
    modulus = expression(found[1].strip())
    if len(numbers) != len(items) or not numbers or modulus == 0:
        raise Unreadable("a congruence that cannot be read")
    return Congruence(name, tuple(numbers), modulus)


def joined_congruences(items: tuple[Answer, ...]) -> Congruence | None:
    """Several congruences for one name by one modulus as one. None when they are anything else."""
    congruences = [item for item in items if isinstance(item, Congruence)]
    if len(congruences) != len(items) or len({(one.name, one.modulus) for one in congruences}) != 1:
        return None
    residues = tuple(residue for one in congruences for residue in one.residues)
    return Congruence(congruences[0].name, residues, congruences[0].modulus)


def same_congruence(reference: Congruence, answer: Congruence) -> bool:
    """Whether both hold the same whole numbers, or are written alike where there are letters in them."""
    if reference.name and answer.name and reference.name != answer.name:
        return False
    numbers = (reference.modulus, answer.modulus, *reference.residues, *answer.residues)
    if not all(number.is_Integer for number in numbers):
        return reference.modulus == answer.modulus and set(reference.residues) == set(answer.residues)
    modulus = math.lcm(int(reference.modulus), int(answer.modulus))
    if modulus > LARGEST_MODULUS:
        return reference.modulus == answer.modulus and _remainders(reference) == _remainders(answer)
    return _within(reference, modulus) == _within(answer, modulus)


def is_remainder(number: Value, answer: Congruence) -> bool:
    """Whether a number is the smallest of the class: 2 for 2 (mod 5) and for 7 (mod 5)."""
    residue = answer.residues[0]
    whole = len(answer.residues) == 1 and residue.is_Integer and answer.modulus.is_Integer and number.expr.is_Integer
    return whole and not number.unit and bool(residue % abs(answer.modulus) == number.expr)


def _remainders(side: Congruence) -> set[int]:
    return {int(residue) % abs(int(side.modulus)) for residue in side.residues}


def _within(side: Congruence, modulus: int) -> set[int]:
    step = abs(int(side.modulus))
    return {number for residue in _remainders(side) for number in range(residue, modulus, step)}
