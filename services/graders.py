"""Which graders there are, and where each one lives. Adding one takes its file and its line here.

The classes are named, not imported: the verifier's processes import them when the first response to grade arrives, and
every other room only asks whether a name is known.
"""

from collections.abc import Mapping

GRADERS: Mapping[str, str] = {
    "exact": "verifier.graders.exact:ExactMatch",
    "math": "verifier.graders.math_answer:MathAnswer",
}
"""Name -> module:class of a verifier.scorer.Scorer."""


def known_graders() -> str:
    """The names, for an error message."""
    return ", ".join(f'"{name}"' for name in sorted(GRADERS))
