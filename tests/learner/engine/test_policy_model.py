"""A policy from a Hugging Face folder: what it refuses, what it scores, and the folder that it is written to."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    DbrxConfig,
    FalconH1Config,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2ForCausalLM,
)

from learner.engine.logit_form import LogitForm
from learner.engine.policy_model import PolicyModel, inputs, model_dtype, probes
from services.config.model import ModelConfig, TeacherConfig
from services.errors import InputError
from tests.architectures import SIZES
from tests.learner.tiny import VOCABULARY, write_tiny_model

TOKENS = [1, 2, 3, 4, 5]


def policy(folder: Path, **changes: object) -> PolicyModel:
    settings = ModelConfig(path=str(folder), max_length=11, dtype="float32")
    return PolicyModel(settings, head_chunk_tokens=2, gradient_checkpointing=bool(changes.get("checkpointing", False)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"), tied=True)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_log_probs_are_those_of_the_model_in_training_mode_too(model: Path, checkpointing: bool) -> None:
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        log_p = plain(torch.tensor([TOKENS])).logits[0, :-1].log_softmax(-1)
        own = policy(model, checkpointing=checkpointing).train()  # the model's own dropout would change them
        logp, entropy, residual = own(*inputs(probes([TOKENS], packed=False), torch.device("cpu")))
    expected = log_p.gather(1, torch.tensor(TOKENS[1:])[:, None])[:, 0]
    assert torch.allclose(logp, expected, atol=1e-5)
    assert torch.allclose(entropy, -(log_p.exp() * log_p).sum(-1), atol=1e-5)
    onehot = torch.nn.functional.one_hot(torch.tensor(TOKENS[1:]), log_p.shape[-1])
    assert torch.allclose(residual, (onehot - log_p.exp()).norm(dim=-1), atol=1e-5)


DBRX: dict[str, Any] = {
    "d_model": 32,
    "n_heads": 4,
    "n_layers": 2,
    "vocab_size": 96,
    "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
    "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
}
DROPPING: dict[str, tuple[PreTrainedConfig, dict[str, Any]]] = {
    "whole layers": (OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32), {"layerdrop": 0.5, "dropout": 0.0}),
    "integers": (
        GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4),
        {"attn_pdrop": 1, "resid_pdrop": 1, "embd_pdrop": 1},
    ),
    "a section": (DbrxConfig(**DBRX), {"attn_config": DBRX["attn_config"] | {"attn_pdrop": 0.9}}),
    "an integer in a section": (DbrxConfig(**DBRX), {"attn_config": DBRX["attn_config"] | {"attn_pdrop": 1}}),
}


@pytest.mark.parametrize("role", ["policy", "teacher"])
@pytest.mark.parametrize("what", DROPPING)
def test_nothing_is_dropped_in_training_mode(what: str, role: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config, drops = DROPPING[what]
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, **drops}))
    settings = ModelConfig(path=str(tmp_path), max_length=11, dtype="float32")
    teacher = TeacherConfig(path=str(tmp_path), dtype="float32")
    own = PolicyModel(settings if role == "policy" else teacher, head_chunk_tokens=2, gradient_checkpointing=False)
    with torch.no_grad():
        still, *moved = (
            own.train(mode)(*inputs(probes([TOKENS], packed=False), torch.device("cpu")))[0]
            for mode in (False, True, True, True)
        )
    assert all(torch.allclose(logp, still, atol=1e-6) for logp in moved)


def test_hidden_states_are_given_only_when_asked_for(model: Path) -> None:
    own = policy(model)
    assert len(own(*inputs(probes([TOKENS], packed=False), torch.device("cpu")))) == 3
    own.shows_hidden = True
    assert own(*inputs(probes([TOKENS], packed=False), torch.device("cpu")))[3].shape == (1, 32)


def test_a_tied_head_is_one_weight_under_the_name_of_the_embedding(model: Path) -> None:
    names = [name for name, _ in policy(model).named_weights()]
    assert len(names) == len(set(names))
    assert "model.embed_tokens.weight" in names
    assert not any("lm_head" in name for name in names)


FORMS: dict[str, tuple[PreTrainedConfig, LogitForm]] = {
    "Gemma 2": (
        Gemma2Config(**SIZES, head_dim=8, attn_logit_softcapping=None, final_logit_softcapping=2.0),
        LogitForm(softcap=2.0),
    ),
    "Cohere": (CohereConfig(**SIZES, logit_scale=4.0), LogitForm(scale=4.0)),
    "Granite": (GraniteConfig(**SIZES, logits_scaling=0.25), LogitForm(scale=4.0)),
    "Falcon-H1": (
        FalconH1Config(
            **SIZES, mamba_d_ssm=64, mamba_n_heads=8, mamba_d_head=8, mamba_d_state=16, lm_head_multiplier=4.0
        ),
        LogitForm(scale=4.0),
    ),
    "a bias": (
        PhiConfig(**{name: value for name, value in SIZES.items() if name != "num_key_value_heads"}),
        LogitForm(),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_logits_that_are_scaled_bounded_or_shifted_are_those_of_the_model(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    config, form = FORMS[name]
    saved = AutoModelForCausalLM.from_config(config)
    saved.get_output_embeddings().weight.data.mul_(100)  # logits of several nats, where a bound shows
    if (bias := saved.get_output_embeddings().bias) is not None:
        bias.data.normal_()
    saved.save_pretrained(tmp_path)
    plain, own = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval(), policy(tmp_path).eval()
    assert own.causal_lm.get_output_embeddings().form == form
    with torch.no_grad():
        log_p = plain(torch.tensor([TOKENS])).logits[0, :-1].log_softmax(-1)
        logp, *_ = own(*inputs(probes([TOKENS], packed=False), torch.device("cpu")))
    expected = log_p.gather(1, torch.tensor(TOKENS[1:])[:, None])[:, 0]
    assert float(expected.std()) > 0.1
    assert torch.allclose(logp, expected, atol=1e-5)


@pytest.mark.parametrize("setting", ["final_logit_softcapping", "logit_scale"])
def test_a_key_that_the_model_does_not_read_changes_nothing(tmp_path: Path, setting: str) -> None:
    folder = write_tiny_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, setting: 30.0}))
    assert policy(folder).causal_lm.get_output_embeddings().form == LogitForm()


def test_a_checkpoint_that_lacks_weights_is_refused_by_name(model: Path, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.path = .* lacks model\.layers\.1\.mlp\.down_proj\.weight\."):
        policy(folder)


def test_a_tied_head_that_is_another_weight_than_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", tied=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(InputError, match="ties lm_head to the embedding"):
        policy(folder)


def test_a_model_that_does_more_before_its_logits_is_refused_whatever_its_config_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, forward = write_tiny_model(tmp_path / "model"), Qwen2ForCausalLM.forward

    def scaled(self: Qwen2ForCausalLM, **arguments: object) -> object:
        output = forward(self, **arguments)
        output.logits = output.logits / 8
        return output

    policy(folder)
    monkeypatch.setattr(Qwen2ForCausalLM, "forward", scaled)
    with pytest.raises(InputError, match="Qwen2ForCausalLM computes its logits by more than its last hidden state"):
        policy(folder)


def test_dtypes() -> None:
    assert model_dtype(ModelConfig(path="m", max_length=11, dtype="bfloat16")) == torch.bfloat16
    assert model_dtype(ModelConfig(path="m", max_length=11, dtype="float32")) == torch.float32
    assert max(TOKENS) < VOCABULARY
