"""How much of a GPU the engine may take so that the next version of the weights has room beside it.

vLLM takes gpu_memory_utilization of the whole GPU when it starts, and knows nothing of what its workers keep: the copy that a
version is received into, and the second model that it is prepared in.
"""

import logging
from pathlib import Path

from services.config.run import RunConfig
from services.errors import InputError
from services.models.staging import staging_bytes

log = logging.getLogger("ratchet.rollout")


def engine_fraction(run: RunConfig, fraction: float, gpu_bytes: int) -> float:
    """What vLLM may take of a GPU, as a fraction, so that the replica takes this fraction with what it keeps beside it.

    fraction: rollout.gpu_memory_fraction. gpu_bytes: all memory of the GPU. Raises InputError where the weights and what is
    kept beside them do not fit.
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
    own_bytes = held.gpu / run.rollout.tensor_parallel
    second_bytes = own_bytes if run.rollout.prepare_weights else 0.0
    left_bytes = fraction * gpu_bytes - staged.gpu - second_bytes
    if left_bytes < own_bytes:
        beside = {
            "the copy that the next version is received into": staged.gpu,
            "the second model that it is prepared in": second_bytes,
        }
        said = "".join(f" and {size / 2**30:.1f} GiB for {what}" for what, size in beside.items() if size)
        raise InputError(
            f"rollout.gpu_memory_fraction = {fraction:g} of {gpu_bytes / 2**30:.1f} GiB is too little for the weights of "
            f"{run.model.path}: {own_bytes / 2**30:.1f} GiB{said}, before any KV cache. Raise it, "
            + ("set rollout.prepare_weights = false, " if second_bytes else "")
            + ('set weights.type = "gloo", which receives in host memory, ' if staged.gpu else "")
            + "raise rollout.tensor_parallel, or take a smaller model"
        )
    return left_bytes / gpu_bytes
