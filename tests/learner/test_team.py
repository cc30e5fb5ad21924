"""What rank 0 has done to the reference, every rank does."""

from pathlib import Path

from learner.team import Team
from services.config.load import load
from tests.fakes.train_engine import BigramEngine

ROOT = Path(__file__).parents[2]


class Recording(BigramEngine):
    """One of two ranks: what rank 0 sends waits in `sent`."""

    world_size = 2

    def __init__(self, rank: int, sent: list[bytes]) -> None:
        super().__init__()
        self.rank, self.sent = rank, sent

    def broadcast_bytes(self, payload: bytes | None) -> bytes:
        if payload is None:
            return self.sent.pop(0)
        self.sent.append(payload)
        return payload

    def ratchet_reference(self) -> None:
        self.calls.append("ratchet")

    def roll_back_reference(self) -> None:
        self.calls.append("roll back")


def test_every_rank_moves_its_share_of_the_reference() -> None:
    config, sent = load(ROOT / "examples/addition/addition.toml"), list[bytes]()
    first, second = Recording(0, sent), Recording(1, sent)
    team = Team(config, first)
    team.ratchet()
    team.roll_back()
    team.ratchet()
    team.finish()
    Team(config, second).follow()
    assert first.calls == second.calls == ["ratchet", "roll back", "ratchet"]
