"""What comes before DeepSpeed's engine: its import, the process group and its configuration.

The only file importing deepspeed.
"""

import os
import socket
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import nn

from learner.engine.policy_model import model_dtype
from services import library_logs, log_lines
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.errors import InputError


def import_deepspeed(device: Literal["cpu", "cuda"]) -> Any:
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # has to be set before the first import
    import deepspeed  # type: ignore[import-untyped]
    import deepspeed.ops  # type: ignore[import-untyped]
    from deepspeed.utils import logger  # type: ignore[import-untyped]

    logger.setLevel(library_logs.level())
    log_lines.adopt(logger)
    if device == "cpu":
        # Otherwise the first init_distributed spends about 25 s on compiling a shared-memory op.
        deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


def join_ranks(
    deepspeed: Any, device: Literal["cpu", "cuda"], cpu_threads: int, collective_timeout_s: float
) -> torch.device:
    """Start the process group; returns this rank's device."""
    _one_rank_unless_torchrun()
    if device == "cpu":
        torch.set_num_threads(cpu_threads)
        own = torch.device("cpu")
    else:
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
    deepspeed.init_distributed(
        "gloo" if device == "cpu" else "nccl",
        timeout=timedelta(seconds=collective_timeout_s),
        verbose=False,
        dist_init_required=True,
    )
    return own


def _one_rank_unless_torchrun() -> None:
    """Without torchrun's environment, set one for a single rank."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def deepspeed_config(model: ModelConfig, settings: LearnerConfig) -> dict[str, Any]:
    postponed = postpones_reduction(settings)
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Every step() is a boundary, after any number of micro-batches. Postponed reductions have one of their own.
        "managed_gradient_accumulation": postponed and settings.zero_stage > 0,
        # This makes DeepSpeed clip at all; the norm is set again before each step.
        "gradient_clipping": 0.0 if clips_itself(model, settings) else settings.optimizer.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": settings.zero_stage,
            "overlap_comm": False,
            # At stage 3 everything is partitioned between two uses, so that the policies can be exchanged.
            "stage3_param_persistence_threshold": 0,
            "stage3_max_reuse_distance": 0,
        },
        "steps_per_print": 2**31,
    }
    if model_dtype(model) == torch.bfloat16:
        if postponed:
            raise InputError(
                'learner.advantage.baseline = "minimum_variance_exact" postpones reductions, which DeepSpeed does only for '
                'float32; set model.dtype = "float32", or the baseline "minimum_variance"'
            )
        if settings.zero_stage == 0:
            raise InputError(
                "learner.zero_stage = 0 cannot add up float32 gradients of a bfloat16 model; set learner.zero_stage = 1"
            )
        # A gradient is added to its float32 sum as soon as it is there, and not kept in bfloat16 until the end of the backward:
        # 2 bytes a parameter less at stage 1, the same sums. The other stages add up in their own ways.
        config["bf16"] = {"enabled": True, "immediate_grad_update": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def partition(
    deepspeed: Any, model: nn.Module, config: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> None:
    """Split a model that lies whole on the host over the ranks, one parameter at a time (ZeRO stage 3).

    deepspeed.initialize would move all of it to the device before it splits it, and a device need not hold a whole model.
    """
    for parameter in model.parameters():  # as initialize does, but for a model that is split already
        parameter.data = parameter.data.to(dtype)
    deepspeed.zero.Init(module=model, config_dict_or_path=config)
    for buffer in model.buffers():  # are not split, and initialize leaves a model that is split where it lies
        buffer.data = buffer.data.to(device)


def clips_itself(model: ModelConfig, settings: LearnerConfig) -> bool:
    return settings.zero_stage == 0 and model.dtype == "float32"


def postpones_reduction(settings: LearnerConfig) -> bool:
    """Whether gradients are looked at one by one before they are reduced over ranks (`backward_one_by_one`)."""
    return settings.advantage.baseline == "minimum_variance_exact"
