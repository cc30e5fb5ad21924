"""How much of a GPU the engine may take so that the next version of the weights has room beside it.

vLLM takes gpu_memory_utilization of the whole GPU when it starts, and knows nothing of the copy that its workers keep.
"""

import logging
from pathlib import Path

from services.config.run import RunConfig
from services.errors import InputError
from services.models.staging import staging_bytes

log = logging.getLogger("ratchet.rollout")


def engine_fraction(run: RunConfig, fraction: float, gpu_bytes: int) -> float:
    """What vLLM may take of a GPU, as a fraction, so that the replica takes this fraction with the copy beside it.

    fraction: rollout.gpu_memory_fraction. gpu_bytes: all memory of the GPU. Raises InputError where the weights and their copy
    do not fit.
    """
    folder = Path(run.model.path)
    if not folder.is_dir():  # a name on the hub, whose size is not known before it is loaded
        log.warning(
            "the size of model.path = %s is not known before vLLM has loaded it: leave room for a copy of the weights beside "
            "rollout.gpu_memory_fraction, or give its folder",
            run.model.path,
        )
        return fraction
    staged, held = (staging_bytes(folder, run.model.dtype, backend) for backend in (run.weights.type, "nccl"))
    left_bytes = fraction * gpu_bytes - staged.gpu
    own_bytes = held.gpu / run.rollout.tensor_parallel
    if left_bytes < own_bytes:
        copy = (
            f" and {staged.gpu / 2**30:.1f} GiB for the copy that the next version is received into"
            if staged.gpu
            else ""
        )
        raise InputError(
            f"rollout.gpu_memory_fraction = {fraction:g} of {gpu_bytes / 2**30:.1f} GiB is too little for the weights of "
            f"{run.model.path}: {own_bytes / 2**30:.1f} GiB{copy}, before any KV cache. Raise it, "
            + ('set weights.type = "gloo", which receives in host memory, ' if staged.gpu else "")
            + "raise rollout.tensor_parallel, or take a smaller model"
        )
    return left_bytes / gpu_bytes
