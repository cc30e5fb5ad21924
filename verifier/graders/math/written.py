"""Notation without a value to work out, which is compared as it is written: \\triangle ABC, \\mathbb{Z}_5, 1, 2, \\ldots, n."""

import re

from verifier.graders.math.expression import Unreadable
from verifier.graders.math.forms import Answer, Described
from verifier.graders.math.notation import depths
from verifier.graders.math.reader import Grammar

SIGN = re.compile(
    r"\\(?:triangle|angle|coth|aleph|nabla|mathbb|[lc]?dots|parallel|perp|odot|oplus|otimes)"
    r"(?![a-zA-Z])|\\text\s*\{\s*(?:sgn|sign|Re|Im|[aA]rg|tr|rank|dim|ker|span|adj|diag|Aut|Hom|Gal|SL|GL|SO|SU|Var|Cov|Res)\s*\}"
)
DOTS = re.compile(r"\\[lc]?dots(?![a-zA-Z])")
ITS_OWN_SPACE = re.compile(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])")


def is_as_written(text: str) -> bool:
    return SIGN.search(text) is not None


def as_written(text: str, _: Grammar) -> Answer:
    """Raises Unreadable where brackets do not match."""
    level = depths(text)
    if min(level) < 0 or text.count("(") != text.count(")") or text.count("{") != text.count("}"):
        raise Unreadable("the answer's brackets do not match")
    text = DOTS.sub(r"\\ldots ", text)
    return Described(re.sub(r"\s+", "", ITS_OWN_SPACE.sub(r"\1#", text)))
