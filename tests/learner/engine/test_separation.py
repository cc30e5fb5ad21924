"""Models that do not keep packed sequences apart are found by their own log-probs, whatever they are."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.engine.policy_model import PolicyModel, inputs, model_dtype, probe_logps, probes
from learner.engine.separation import BOUND_NATS, Separation, may_pack, may_share_prompts, measure_separation
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.errors import InputError
from tests.architectures import VOCABULARY, write_architecture
from tests.learner.ranks import run_ranks

APART = ("qwen2", "llama", "qwen3_moe", "gpt_neox", "deepseek_v3", "opt")
PROBED = list(range(1, VOCABULARY, 5))
LEAKING = ("granitemoehybrid", "lfm2", "qwen3_next")


def policy(folder: Path, dtype: Literal["float32", "bfloat16"] = "float32") -> PolicyModel:
    settings = ModelConfig(path=str(folder), max_length=64, dtype=dtype)
    return PolicyModel(settings, head_chunk_tokens=64, gradient_checkpointing=False)


def measured(model: PolicyModel, longest: int = 64) -> Separation:
    @torch.no_grad()
    def score(batches: Sequence[MicroBatch]) -> list[Tensor]:
        return [model(*inputs(batch, torch.device("cpu")))[0] for batch in batches]

    return measure_separation(score, vocabulary=model.vocabulary, longest=longest, by_span=model.attends_by_span)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", [*APART, *LEAKING])
def test_rows_are_shared_only_by_models_that_keep_sequences_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, architecture: str, dtype: Literal["float32", "bfloat16"]
) -> None:
    model = policy(write_architecture(tmp_path, architecture), dtype)
    found = measured(model)
    with caplog.at_level(logging.WARNING, logger="ratchet.learner"):
        packs = may_pack("model.path = m", found, model_dtype(model.settings))
    assert packs == (architecture in APART)
    assert ("model.path = m does not keep the sequences of a packed row apart" in caplog.text) == (not packs)
    # Neither verdict is a near one.
    bound = BOUND_NATS[model_dtype(model.settings)]
    assert found.packed_nats < bound / 3 if packs else found.packed_nats > 5 * bound
    assert found.beside_nats < bound / 3
    if packs:
        assert found.shared_nats < bound / 3
    assert may_share_prompts("model.path = m", found, model_dtype(model.settings)) == packs


@pytest.mark.parametrize("longest", [8, 9, 20])
def test_sequences_fit_a_model_made_for_few_tokens(tmp_path: Path, longest: int) -> None:
    found = measured(policy(write_architecture(tmp_path, "opt")), longest)  # it has learned positions
    assert found.packed_nats < 1e-4
    assert found.shared_nats < 1e-4


@pytest.mark.parametrize("nats", [0.5, float("nan")])
def test_a_model_whose_sequences_depend_on_their_batch_is_refused(nats: float) -> None:
    with pytest.raises(InputError, match=r"model\.path = m: the log-probs of a sequence change by"):
        may_pack("model.path = m", Separation(packed_nats=0.0, beside_nats=nats, shared_nats=0.0), torch.bfloat16)


@pytest.mark.parametrize(("nats", "said"), [(0.5, True), (math.inf, False)])
def test_a_model_that_scores_behind_a_shared_prompt_otherwise_computes_it_with_each_response(
    caplog: pytest.LogCaptureFixture, nats: float, said: bool
) -> None:
    """inf: a model that keeps its masks, which has been said when it was loaded."""
    found = Separation(packed_nats=0.0, beside_nats=0.0, shared_nats=nats)
    with caplog.at_level(logging.WARNING, logger="ratchet.learner"):
        assert not may_share_prompts("model.path = m", found, torch.bfloat16)
    assert ("model.path = m scores responses differently where their prompt is in the row once" in caplog.text) == said


@pytest.mark.parametrize(("architecture", "alike"), [("llama", True), ("granitemoehybrid", False)])
def test_a_packed_probe_says_what_a_lone_one_says_only_where_rows_may_be_shared(
    tmp_path: Path, architecture: str, alike: bool
) -> None:
    model, tokens = policy(write_architecture(tmp_path, architecture)), PROBED
    with torch.no_grad():
        lone, packed = (
            probe_logps([tokens], model(*inputs(probes([tokens], packed=packed), torch.device("cpu")))[0])[0]
            for packed in (False, True)
        )
    assert len(lone) == len(packed) == len(tokens) - 1
    assert (packed == pytest.approx(lone, abs=1e-4)) == alike


def engine_trial(folder: Path, out: Path) -> None:
    settings = LearnerConfig(steps=1, groups_per_step=1, zero_stage=3)
    engine = DeepSpeedEngine(ModelConfig(path=str(folder), max_length=64, dtype="float32"), settings, "cpu")
    (out / "said.json").write_text(json.dumps([engine.packs_rows, engine.sequence_logps([PROBED])[0]]))
    engine.close()


def test_an_engine_over_such_a_model_says_so_and_scores_the_probe_alone(tmp_path: Path) -> None:
    """One real engine, since measuring is collective and happens among its first forwards."""
    folder = write_architecture(tmp_path / "model", "lfm2")
    run_ranks(engine_trial, folder, tmp_path, ranks=1)
    packs, logp = json.loads((tmp_path / "said.json").read_text())
    assert packs is False
    with torch.no_grad():
        statistics = policy(folder)(*inputs(probes([PROBED], packed=False), torch.device("cpu")))
    assert logp == pytest.approx(probe_logps([PROBED], statistics[0])[0], abs=1e-4)
