"""How figures of a run are shown on a terminal."""


def number(value: float | None, digits: int = 3) -> str:
    """The number with so many digits after the point; a dash for one that there is not, or that was not finite."""
    return "-" if value is None else f"{value:.{digits}f}"
