"""How much memory an engine worker needs for the next version of the weights, beside the version that it samples with.

A worker receives a version whole, proves it, and then swaps it in; the memory is kept for the version after it. Over NCCL
it lies on the GPU, over gloo on the host, where it is pinned if the engine is on a GPU. Tensor parallelism does not divide it.
With rollout.prepare_weights a second model is beside it, of the size of the engine's own (rollout/vllm/second_model.py).
"""

import json
import math
import struct
from pathlib import Path
from typing import Literal, NamedTuple

from services.config.model import Dtype
from services.errors import InputError

ITEM_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}
COUNTS = {"I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
"""Bytes of an element of buffers that are no weights, which travel in their own dtype, by the names of safetensors."""
ALIGNMENT_BYTES = 256
"""Tensors begin at multiples of it in a bucket (services/weights/buckets.py)."""


class StagingBytes(NamedTuple):
    """Bytes that one engine worker takes for the next version, on its GPU and on its host."""

    gpu: int
    host: int


def staging_bytes(model_folder: Path, dtype: Dtype, backend: Literal["nccl", "gloo", "http"]) -> StagingBytes:
    """What a worker needs to receive a version of this model. dtype: model.dtype, in which weights travel.

    Reads the headers of the checkpoint's files, or the sizes of files that are not safetensors. Raises InputError where the
    folder holds no weights, or a header cannot be read.
    """
    files = sorted(model_folder.glob("*.safetensors"))
    if files:
        size = sum(_bytes_of(file, dtype) for file in files)
    else:
        size = sum(file.stat().st_size for file in model_folder.glob("pytorch_model*.bin"))
    if not size:
        raise InputError(f"model.path = {model_folder} holds no weights (*.safetensors); get the whole model again")
    return StagingBytes(size, 0) if backend == "nccl" else StagingBytes(0, size)


def _bytes_of(file: Path, dtype: Dtype) -> int:
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length))
            tensors = [described for name, described in header.items() if name != "__metadata__"]
            sizes = [math.prod(each["shape"]) * COUNTS.get(each["dtype"], ITEM_BYTES[dtype]) for each in tensors]
    except (OSError, ValueError, KeyError, TypeError, struct.error, MemoryError, OverflowError) as fault:
        raise InputError(f"model.path: {file} is damaged or cut short: {fault!r}; download it again") from fault
    return sum(-(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size in sizes)
