"""Whether reading takes time in proportion to what is read, on a slow machine as on a fast one."""

import time
from collections.abc import Callable

PARTS = 4
MOST = 2 * PARTS
"""How many times as long the whole may take as one of its parts: PARTS times in proportion, PARTS squared by pairs."""
TOO_SHORT_S = 0.05  # processor time that a machine doing other things makes twice as much, or half


def takes_linear_time(read: Callable[[str], object], flood: str) -> bool:
    """Read a part of the flood and then the whole. flood: of one kind from its beginning to its end."""
    part_s, whole_s = (_seconds(read, text) for text in (flood[: len(flood) // PARTS], flood))
    return whole_s < MOST * max(part_s, TOO_SHORT_S)


def _seconds(read: Callable[[str], object], text: str) -> float:
    """How much processor time reading took."""
    began_s = time.process_time()
    read(text)
    return time.process_time() - began_s
