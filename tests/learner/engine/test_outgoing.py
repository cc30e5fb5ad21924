"""What leaves the learner: every weight under its checkpoint name, straight from where it lies, in portions of any size."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from learner.engine import outgoing
from learner.engine.outgoing import OutgoingWeights
from learner.engine.policy_model import PolicyModel
from learner.publish.kept_buckets import BucketPool
from services.config.model import ModelConfig
from services.weights import buckets
from services.wire.weights import Bucket
from tests.architectures import CONFIGS, write_architecture


def policy(folder: Path, architecture: str) -> PolicyModel:
    settings = ModelConfig(path=str(write_architecture(folder, architecture)), max_length=64, dtype="float32")
    return PolicyModel(settings, head_chunk_tokens=64, gradient_checkpointing=False)


def packed_whole(model: PolicyModel, dtype: torch.dtype) -> list[Bucket]:
    """The buckets of a plain copy of every parameter, with their digests."""
    whole = [(name, parameter.detach().to(dtype, copy=True)) for name, parameter in model.named_weights()]
    saved = model.under_checkpoint_names([*whole, *model.named_buffers_kept()])
    return [bucket for bucket, _ in buckets.pack(saved, 1)]


def sent(outgoing_weights: OutgoingWeights, dtype: torch.dtype) -> list[Bucket]:
    kept, _ = BucketPool(outgoing_weights.shapes(dtype), 1, torch.device("cpu")).take()
    outgoing_weights.copy(kept.named)
    return list(buckets.sealed(kept.layout, [buckets.digest(flat) for flat in kept.flat]))


class Partitioned:
    """As at ZeRO stage 3: a parameter is empty, but for the time in which it is gathered."""

    def __init__(self, model: PolicyModel) -> None:
        self._whole = {parameter: parameter.data for _, parameter in model.named_weights()}
        self.gathered: list[int] = []
        """Elements of each portion."""
        for parameter, whole in self._whole.items():
            parameter.ds_shape = whole.shape  # type: ignore[attr-defined]
            parameter.data = torch.empty(0, dtype=whole.dtype)

    @contextlib.contextmanager
    def gather(self, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
        self.gathered.append(sum(self._whole[parameter].numel() for parameter in parameters))
        memory: list[tuple[nn.Parameter, Tensor]] = [(each, self._whole[each].clone()) for each in parameters]
        for parameter, whole in memory:
            parameter.data = whole
        yield
        for parameter, whole in memory:
            whole.fill_(-1)  # its memory is used for something else
            parameter.data = torch.empty(0, dtype=whole.dtype)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_digests_are_those_of_a_whole_copy_for_every_architecture_sharded_or_not(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "GATHER_ELEMENTS", 5000)
    model = policy(tmp_path, architecture)
    expected = {dtype: packed_whole(model, dtype) for dtype in (torch.float32, torch.bfloat16)}
    whole = OutgoingWeights(model, lambda _: contextlib.nullcontext(), copies=True)
    for dtype, wanted in expected.items():
        assert sent(whole, dtype) == wanted
    partitioned = Partitioned(model)
    parts = OutgoingWeights(model, partitioned.gather, copies=True)
    for dtype, wanted in expected.items():
        assert sent(parts, dtype) == wanted
    largest = max(parameter.ds_shape.numel() for _, parameter in model.named_weights())  # type: ignore[attr-defined]
    assert max(partitioned.gathered) < 5000 + largest


def test_what_has_to_be_converted_together_is_gathered_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tensors in memory that are one in the checkpoint: no model of the table has such."""
    model = policy(tmp_path, "qwen2")
    plain = model.under_checkpoint_names

    def joined(tensors: Sequence[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
        found = dict(plain(tensors))
        layer = "model.layers.0.self_attn"
        pair = [
            found.pop(f"{layer}.{name}.weight") for name in ("k_proj", "v_proj") if f"{layer}.{name}.weight" in found
        ]
        if pair:
            found[f"{layer}.kv.weight"] = torch.cat(pair)
        return list(found.items())

    monkeypatch.setattr(model, "under_checkpoint_names", joined)
    expected = packed_whole(model, torch.float32)
    assert sent(OutgoingWeights(model, Partitioned(model).gather, copies=True), torch.float32) == expected


def test_a_rank_that_does_not_copy_takes_part_in_every_gather(tmp_path: Path) -> None:
    partitioned = Partitioned(model := policy(tmp_path, "qwen2"))
    sent(OutgoingWeights(model, partitioned.gather, copies=True), torch.float32)
    copying = list(partitioned.gathered)
    partitioned.gathered.clear()
    OutgoingWeights(model, partitioned.gather, copies=False).copy({})
    assert partitioned.gathered == copying
