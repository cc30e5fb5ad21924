"""What a lane is."""

from collections.abc import Sequence
from typing import Protocol

from services.wire.verdict import Score
from verifier.contract import ScoreItem


class Lane(Protocol):
    async def score(self, items: Sequence[ScoreItem], caller: str = "") -> list[Score]:
        """One score for each item, in order. Never raises for an item: what goes wrong at one is its score."""
