"""Tensors of a checkpoint that were cut off or changed are found before they are loaded, and the file is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from learner.engine.checkpoint_parts import damage_of_parts
from services.run.checkpoint_files import Damaged

PARTS = ("engine/mp_rank_00_model_states.pt", "engine/zero_optim_states.pt", "reference_rank_0.pt")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "step-00000040"
    (folder / "engine").mkdir(parents=True)
    for number, name in enumerate(PARTS):
        torch.save({"weights": [torch.arange(999.0) + number], "step": number}, folder / name)
    return folder


def changed_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def found_by(checkpoint: Path, ranks: int) -> list[Damaged | None]:
    """What each rank says, all of them together."""

    def look(rank: int, sum_over_ranks: Callable[[torch.Tensor], torch.Tensor]) -> Damaged | None:
        return damage_of_parts(checkpoint, rank, ranks, sum_over_ranks)

    shares: list[torch.Tensor] = []

    def collect(tensor: torch.Tensor) -> torch.Tensor:
        shares.append(tensor)
        return torch.zeros_like(tensor)

    for rank in range(ranks):
        look(rank, collect)
    return [look(rank, lambda _: torch.stack(shares).sum(0)) for rank in range(ranks)]


def test_whole_parts_are_accepted_by_every_rank(checkpoint: Path) -> None:
    for ranks in (1, 2, 8):
        assert found_by(checkpoint, ranks) == [None] * ranks


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "change",
    [lambda _: b"", lambda content: content[:-1], lambda content: content[:100], lambda _: b"{}" * 99, changed_bit],
    ids=["empty", "one byte short", "cut off", "something else", "a changed bit"],
)
def test_what_is_not_as_it_was_written_is_named_by_every_rank(
    checkpoint: Path, part: str, change: Callable[[bytes], bytes]
) -> None:
    path = checkpoint / part
    path.write_bytes(change(path.read_bytes()))
    for ranks in (1, 2):
        found = found_by(checkpoint, ranks)
        assert [damaged and damaged.file for damaged in found] == [path] * ranks
        assert any(damaged is not None and "a rank could not" not in damaged.why for damaged in found)


def test_torch_itself_does_not_notice_a_changed_bit(checkpoint: Path) -> None:
    path = checkpoint / PARTS[0]
    path.write_bytes(changed_bit(path.read_bytes()))
    (weights,) = torch.load(path, weights_only=True)["weights"]
    assert not torch.equal(weights, torch.arange(999.0))
