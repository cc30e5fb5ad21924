"""The real engine computes what the learner does, with weights from disk and with those that are sent to it.

A few rows of the table in docs/models.md, whose program runs them all: those where names, fused weights, windows and states meet.
"""

from pathlib import Path

import pytest

from benchmarks.architectures.models import MODELS, write_model
from benchmarks.architectures.results import Gap, Row
from benchmarks.architectures.row import compare
from benchmarks.architectures.served import Dtype, run_config
from rollout.vllm.launch import launch, set_environment
from services.errors import InputError
from services.models.engine import CPU_HEAD_SIZES, CPU_LATENT_SIZE, engine_architectures


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("Qwen3-MoE", "bfloat16"), ("Gemma 3, tied", "float32"), ("Phi 3, long-rope", "bfloat16"), ("OPT", "float32")],
)
def test_engine_and_learner_agree_before_and_after_a_swap(tmp_path: Path, name: str, dtype: Dtype) -> None:
    row = Row(name, dtype, MODELS[name].kind)
    compare(row, write_model(name, dtype, tmp_path))
    assert row.refused is None
    assert [fault for fault in row.failures() if not fault.endswith("not tried")] == []
    assert row.sampled is not None
    assert row.swap_kind == "exchange"
    assert row.back == Gap(0.0, 0.0)


def test_heads_that_no_kernel_takes_are_refused_before_the_engine_starts(tmp_path: Path) -> None:
    config = run_config(write_model("heads of 16", "float32", tmp_path), "float32", 64)
    set_environment(config)
    with pytest.raises(InputError, match=r"^model\.path = .* has attention heads of 16, .* takes 32, 64, 80"):
        launch(config)


def test_the_list_of_architectures_is_that_of_the_engine() -> None:
    from vllm.model_executor.models.registry import ModelRegistry

    known = engine_architectures()
    assert known is not None
    assert known <= ModelRegistry.get_supported_archs()
    assert {"Qwen2ForCausalLM", "Gemma3ForConditionalGeneration", "Olmo2ForCausalLM"} <= known
    assert not {"BertModel", "Qwen2ForRewardModel"} & known


def test_head_sizes_are_those_of_the_engines_kernel() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
    from vllm.v1.attention.backends.mla.cpu_mla import CPUMLABackend

    assert list(CPU_HEAD_SIZES) == CPUAttentionBackend.get_supported_head_sizes()
    assert [sum(CPU_LATENT_SIZE)] == CPUMLABackend.get_supported_head_sizes()
