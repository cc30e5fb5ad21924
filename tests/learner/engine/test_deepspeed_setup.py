"""At ZeRO stage 3 a model is split before DeepSpeed's engine takes it: real ranks, since splitting is collective."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from learner.engine.deepspeed_setup import deepspeed_config, import_deepspeed, join_ranks, partition
from learner.engine.policy_model import PolicyModel
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from tests.architectures import write_architecture
from tests.learner.ranks import run_ranks


def trial(folder: Path, out: Path) -> None:
    settings = LearnerConfig(steps=1, groups_per_step=1, zero_stage=3)
    model_settings = ModelConfig(path=str(folder), max_length=64, dtype="float32")
    deepspeed = import_deepspeed("cpu")
    device = join_ranks(deepspeed, "cpu", 1, 60.0)
    policy = PolicyModel(model_settings, head_chunk_tokens=64, gradient_checkpointing=False, stays_mapped=True)
    whole = sum(parameter.numel() for parameter in policy.parameters())
    partition(deepspeed, policy, deepspeed_config(model_settings, settings), torch.float32, device)
    left = sum(parameter.numel() for parameter in policy.parameters())
    held = sum(parameter.ds_tensor.numel() for parameter in policy.parameters())  # type: ignore[attr-defined]
    expected, same = load_file(folder / "model.safetensors"), True
    for name, parameter in policy.named_weights():
        with deepspeed.zero.GatheredParameters([parameter]):
            same = same and torch.equal(parameter.detach(), expected[name])
    (out / f"{dist.get_rank()}.json").write_text(json.dumps([whole, left, held, same]))
    dist.destroy_process_group()


def test_each_rank_is_left_with_its_share_of_what_the_files_hold(tmp_path: Path) -> None:
    folder = write_architecture(tmp_path / "model", "qwen2")
    run_ranks(trial, folder, tmp_path, ranks=2)
    for rank in range(2):
        whole, left, held, same = json.loads((tmp_path / f"{rank}.json").read_text())
        assert left == 0
        assert whole / 2 <= held < 0.51 * whole
        assert same
