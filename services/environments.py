"""Which environments there are, and where each one is. A new one takes its own file and one line here, or an entry point in the
group `ratchet.environments` of a package of its own: docs/environments.md.

The classes are named, not imported: replicas import the one that a run uses, and the other rooms only ask whether a name is
known.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from services.errors import InputError

ENTRY_POINTS = "ratchet.environments"

OURS: Mapping[str, str] = {
    "agent": "rollout.environments.agent.environment:Agent",
    "guess": "rollout.environments.guess:Guess",
    "openenv": "rollout.environments.openenv.environment:OpenEnv",
    "tools": "rollout.environments.tools.environment:Tools",
    "verifiers": "rollout.environments.verifiers.environment:Verifiers",
}
"""Name -> module:class. The class has the methods of rollout.environments.Environment."""


@cache
def environments() -> Mapping[str, str]:
    """Our environments and those of installed packages: name -> module:class. Raises InputError when two have the same name."""
    found = dict(OURS)
    for point in entry_points(group=ENTRY_POINTS):
        if found.get(point.name, point.value) != point.value:
            origin = point.dist.name if point.dist else "a package"
            raise InputError(
                f'{origin} brings an environment "{point.name}" ({point.value}), but that name is already that of '
                f"{found[point.name]}. Uninstall it, or have it renamed in its entry point"
            )
        found[point.name] = point.value
    return found


def location_of(name: str) -> str:
    """module:class of the environment that environment.name names. Raises InputError for an unknown one."""
    if name not in environments():
        known = ", ".join(f'"{one}"' for one in sorted(environments()))
        raise InputError(
            f'environment.name = "{name}": there is no such environment; the known ones are {known}. One in a package of its '
            f"own is known once it is installed beside ratchet, with an entry point in the group {ENTRY_POINTS}"
        )
    return environments()[name]
