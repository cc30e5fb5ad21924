"""The base class of graders that ask another service."""

from abc import abstractmethod
from typing import Any, ClassVar

from verifier.answer import OnAnswer
from verifier.grader import BaseGrader, Judgment, LaneName
from verifier.network.endpoints import Endpoints


class NetworkGrader(BaseGrader, OnAnswer, frozen=True):
    """A grader that waits for another service: it runs in the verifier's event loop, and its endpoint has the deadline."""

    lane: ClassVar[LaneName] = "network"

    def cache_salt(self, endpoints: Endpoints) -> str:
        """What else the verdict depends on, beyond the options: part of the verdict cache's key. Raises ScoringFault when
        the endpoint does not exist."""
        return ""

    @abstractmethod
    async def score(self, response: str, reference: Any, endpoints: Endpoints) -> Judgment:
        """Judges one response, of which it is given the answer. Raises ScoringFault when no verdict is possible, because of
        the reference answer or because the service is away."""
