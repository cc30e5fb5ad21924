"""Which graders there are, and where each one is. A new one takes its own file and one line here, or an entry point in the
group `ratchet.graders` of a package of its own: docs/writing-a-grader.md.

The classes are named, not imported: grader processes import them when the first response arrives, and the other rooms only
ask whether a name is known.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from services.errors import InputError

ENTRY_POINTS = "ratchet.graders"

OURS: Mapping[str, str] = {
    "choice": "verifier.graders.choice:ChoiceAnswer",
    "code": "verifier.graders.code.grader:CodeTests",
    "combine": "verifier.graders.combine:Combine",
    "environment": "verifier.graders.environment:EnvironmentReward",
    "exact": "verifier.graders.exact:ExactMatch",
    "format": "verifier.graders.response_format:ResponseFormat",
    "instructions": "verifier.graders.instructions.grader:Instructions",
    "json": "verifier.graders.json_schema:JsonSchema",
    "judge": "verifier.graders.judge.grader:Judge",
    "math": "verifier.graders.math.grader:MathAnswer",
    "number": "verifier.graders.number:NumberAnswer",
    "reasoning_gym": "verifier.graders.reasoning_gym:ReasoningGym",
    "regex": "verifier.graders.regex:Regex",
    "remote": "verifier.graders.remote:Remote",
}
"""Name -> module:class. The class is a subclass of verifier.grader.BaseGrader."""


@cache
def graders() -> Mapping[str, str]:
    """Our graders and those of installed packages: name -> module:class. Raises InputError when two have the same name."""
    found = dict(OURS)
    for point in entry_points(group=ENTRY_POINTS):
        if found.get(point.name, point.value) != point.value:
            origin = point.dist.name if point.dist else "a package"
            raise InputError(
                f'{origin} brings a grader "{point.name}" ({point.value}), but that name is already that of '
                f"{found[point.name]}. Uninstall it, or have it renamed in its entry point"
            )
        found[point.name] = point.value
    return found


def known_graders() -> str:
    """The names, for an error message."""
    return ", ".join(f'"{name}"' for name in sorted(graders()))
