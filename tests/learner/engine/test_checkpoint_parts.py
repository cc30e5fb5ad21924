"""Tensors of a checkpoint that were cut off or changed are found before they are loaded, and the file is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from learner.engine.checkpoint_parts import check_parts
from services.errors import InputError

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


def test_whole_parts_are_accepted_by_every_rank(checkpoint: Path) -> None:
    for world_size in (1, 2, 8):
        for rank in range(world_size):
            check_parts(checkpoint, rank, world_size)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "change",
    [lambda _: b"", lambda content: content[:-1], lambda content: content[:100], lambda _: b"{}" * 99, changed_bit],
    ids=["empty", "one byte short", "cut off", "something else", "a changed bit"],
)
def test_what_is_not_as_it_was_written_is_named_by_the_rank_that_looks_at_it(
    checkpoint: Path, part: str, change: Callable[[bytes], bytes]
) -> None:
    path = checkpoint / part
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=rf"step-00000040/{part} is damaged: .*Delete the folder .*go on from"):
        check_parts(checkpoint, 0, 1)
    found = 0
    for rank in range(2):
        try:
            check_parts(checkpoint, rank, 2)
        except InputError:
            found += 1
    assert found == 1


def test_torch_itself_does_not_notice_a_changed_bit(checkpoint: Path) -> None:
    path = checkpoint / PARTS[0]
    path.write_bytes(changed_bit(path.read_bytes()))
    (weights,) = torch.load(path, weights_only=True)["weights"]
    assert not torch.equal(weights, torch.arange(999.0))
