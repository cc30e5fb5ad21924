"""How numbers are written where a person reads them: on a terminal, in a report, a log and an error. One way for all of them.

The live page writes them alike (services/page/assets/curves.js). Names stay as they are typed: a step, a policy version, a row,
a group, a port.
"""


def number(value: float | None, digits: int = 3) -> str:
    """The number with this many digits after the point and commas between thousands, such as 12,345.678; a dash for one that
    there is not, or that was not finite."""
    return "-" if value is None else f"{value:,.{digits}f}"


def count(value: float | None) -> str:
    """How many there are, such as 12,345; a dash where nobody knows."""
    return number(value, 0)
