"""What a worker needs for the next version, from the headers of a checkpoint, is what the buckets of that version take."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.config.model import Dtype
from services.errors import InputError
from services.models.staging import ALIGNMENT_BYTES, StagingBytes, staging_bytes
from services.weights import buckets


def checkpoint(folder: Path, stored: torch.dtype) -> dict[str, torch.Tensor]:
    tensors = {f"layer.{i}.weight": torch.ones(31, 7 + i, dtype=stored) for i in range(20)} | {
        "steps": torch.tensor([3, 4, 5])
    }
    names = sorted(tensors)
    save_file(
        {name: tensors[name] for name in names[:9]}, folder / "model-00001-of-00002.safetensors", {"format": "pt"}
    )
    save_file({name: tensors[name] for name in names[9:]}, folder / "model-00002-of-00002.safetensors")
    return tensors


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_it_is_what_buckets_take_within_the_gaps_between_tensors(
    tmp_path: Path, dtype: Dtype, stored: torch.dtype
) -> None:
    tensors = checkpoint(tmp_path, stored)
    assert set(load_file(tmp_path / "model-00001-of-00002.safetensors")) < set(tensors)
    sent = [(n, t.to(getattr(torch, dtype)) if t.is_floating_point() else t) for n, t in tensors.items()]
    taken = sum(bucket.size_bytes for bucket in buckets.lay_out(sent, 1))
    needed = staging_bytes(tmp_path, dtype, "nccl")
    assert 0 <= needed.gpu - taken < 2 * ALIGNMENT_BYTES
    assert staging_bytes(tmp_path, dtype, "gloo") == StagingBytes(gpu=0, host=needed.gpu)
    assert ALIGNMENT_BYTES == buckets.ALIGNMENT_BYTES


def test_a_folder_without_weights_or_with_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no weights"):
        staging_bytes(tmp_path, "float32", "nccl")
    checkpoint(tmp_path, torch.float32)
    cut = tmp_path / "model-00002-of-00002.safetensors"
    cut.write_bytes(cut.read_bytes()[:40])
    with pytest.raises(InputError, match=r"model-00002-of-00002.safetensors is damaged or cut short"):
        staging_bytes(tmp_path, "float32", "nccl")
