"""What vLLM is given for a run; nothing here starts it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.vllm.launch import NORM_ON_CPU, additions, engine_arguments
from services.config.load import load
from services.config.rollout import GPU_STEP_TOKENS
from services.errors import InputError
from tests.services.config.test_load import SMALLEST


def given(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return engine_arguments(load(tmp_path / "run.toml", overrides), gpu_bytes=lambda: 80 * 2**30)


def added(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    return additions(load(tmp_path / "run.toml", overrides))


def test_by_default_gpus_run_graphs_in_large_steps_and_cpus_neither(tmp_path: Path) -> None:
    gpu, cpu = given(tmp_path, "device=cuda"), given(tmp_path)
    assert (gpu["enforce_eager"], gpu["max_num_batched_tokens"]) == (False, GPU_STEP_TOKENS)
    assert cpu["enforce_eager"]
    assert "max_num_batched_tokens" not in cpu
    assert cpu["enable_chunked_prefill"] is False  # a seeded prompt that is read in parts ends the engine there
    assert "enable_chunked_prefill" not in gpu


def test_blocks_of_the_cache_are_small_on_a_cpu(tmp_path: Path) -> None:
    assert given(tmp_path)["block_size"] == 32
    assert "block_size" not in given(tmp_path, "device=cuda")  # vLLM's own there have 16


def test_only_an_engine_of_this_process_that_no_compiler_helps_gets_the_kernel_for_normalization(
    tmp_path: Path,
) -> None:
    whole = "model.dtype=float32"
    kernels = {"rms_norm": [NORM_ON_CPU], "fused_add_rms_norm": [NORM_ON_CPU]}
    assert added(tmp_path, whole)["ir_op_priority"] == kernels
    for other in ("model.dtype=bfloat16", "rollout.enforce_eager=false", "rollout.engine_process=own", "device=cuda"):
        assert "ir_op_priority" not in added(tmp_path, whole, other)


def test_prompts_are_shared_within_groups_of_an_engine_of_this_process_on_a_cpu(tmp_path: Path) -> None:
    assert added(tmp_path)["kv_transfer_config"].kv_connector == "SharedPrompts"
    for other in ("rollout.engine_process=own", "device=cuda"):
        assert "kv_transfer_config" not in added(tmp_path, other)


def test_what_the_run_file_says_takes_precedence_on_both(tmp_path: Path) -> None:
    for device, eager in (("cuda", "true"), ("cpu", "false")):
        own = ["rollout.max_num_batched_tokens=4096", f"rollout.enforce_eager={eager}"]
        arguments = given(tmp_path, f"device={device}", *own)
        assert (arguments["enforce_eager"], arguments["max_num_batched_tokens"]) == (eager == "true", 4096)


def test_a_step_of_the_engine_has_a_token_for_each_of_very_many_sequences(tmp_path: Path) -> None:
    arguments = given(tmp_path, "device=cuda", "rollout.max_concurrent_sequences=10000")
    assert arguments["max_num_batched_tokens"] == arguments["max_num_seqs"] == 10001
    with pytest.raises(InputError, match=r"max_num_batched_tokens = 256 is less than a token for each of .* = 257"):
        given(tmp_path, "rollout.max_num_batched_tokens=256")


@pytest.mark.parametrize(
    ("overrides", "cache", "fraction"),
    [
        (["device=cuda"], None, 0.85),
        (["device=cuda", "rollout.gpu_memory_fraction=0.4"], None, 0.4),
        (["device=cuda", "rollout.kv_cache_gib=2.5"], 2.5, 0.01),
        ([], 1.0, None),
        (["rollout.kv_cache_gib=0.5"], 0.5, None),
        (["rollout.gpu_memory_fraction=0.4"], 1.0, None),
    ],
)
def test_one_setting_sizes_the_cache(
    tmp_path: Path, overrides: list[str], cache: float | None, fraction: float | None
) -> None:
    """With a size for the cache vLLM measures nothing; it only asks whether the fraction of the GPU is free at the start."""
    arguments = given(tmp_path, *overrides)
    assert arguments.get("kv_cache_memory_bytes") == (None if cache is None else int(cache * 2**30))
    assert arguments.get("gpu_memory_utilization") == fraction


def test_two_settings_for_the_cache_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"both size the engine's KV cache; leave one of them out"):
        given(tmp_path, "device=cuda", "rollout.kv_cache_gib=2", "rollout.gpu_memory_fraction=0.4")


def test_vllm_knows_every_argument(tmp_path: Path) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    for overrides in ([], ["device=cuda"], ["device=cuda", "rollout.kv_cache_gib=2"]):
        AsyncEngineArgs(**given(tmp_path, *overrides))


@pytest.mark.parametrize(("overrides", "starts"), [([], False), (["rollout.kv_cache_gib=4"], True)])
def test_beside_a_learner_that_has_taken_its_memory_the_engine_starts_only_with_a_cache_of_its_own_size(
    tmp_path: Path, overrides: list[str], starts: bool
) -> None:
    """vLLM's own check of free memory, of which a GPU of 80 GiB has 33 left."""
    from vllm.v1.worker.utils import request_memory

    arguments = given(tmp_path, "device=cuda", *overrides)
    snapshot: Any = SimpleNamespace(total_memory=80 * 2**30, free_memory=33 * 2**30, device_="cuda:0")
    cache: Any = SimpleNamespace(gpu_memory_utilization=arguments["gpu_memory_utilization"])
    if starts:
        assert request_memory(snapshot, cache) <= snapshot.free_memory
        return
    with pytest.raises(ValueError, match="less than desired GPU memory utilization"):
        request_memory(snapshot, cache)
