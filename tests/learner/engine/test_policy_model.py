"""A policy from a Hugging Face folder: what it refuses, what it scores, and the folder that it is written to."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from learner.engine.policy_model import PolicyModel, inputs, model_dtype, probe, write_folder
from services.config.model import ModelConfig
from services.errors import InputError
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
        logp, entropy, residual = own(*inputs(probe(TOKENS), torch.device("cpu")))
    expected = log_p.gather(1, torch.tensor(TOKENS[1:])[:, None])[:, 0]
    assert torch.allclose(logp, expected, atol=1e-5)
    assert torch.allclose(entropy, -(log_p.exp() * log_p).sum(-1), atol=1e-5)
    onehot = torch.nn.functional.one_hot(torch.tensor(TOKENS[1:]), log_p.shape[-1])
    assert torch.allclose(residual, (onehot - log_p.exp()).norm(dim=-1), atol=1e-5)


def test_hidden_states_are_given_only_when_asked_for(model: Path) -> None:
    own = policy(model)
    assert len(own(*inputs(probe(TOKENS), torch.device("cpu")))) == 3
    own.shows_hidden = True
    assert own(*inputs(probe(TOKENS), torch.device("cpu")))[3].shape == (1, 32)


def test_a_tied_head_is_one_weight_under_the_name_of_the_embedding(model: Path) -> None:
    names = [name for name, _ in policy(model).named_weights()]
    assert len(names) == len(set(names))
    assert "model.embed_tokens.weight" in names
    assert not any("lm_head" in name for name in names)


@pytest.mark.parametrize("setting", ["final_logit_softcapping", "logit_scale"])
def test_a_model_whose_logits_are_more_than_a_product_is_refused(tmp_path: Path, setting: str) -> None:
    folder = write_tiny_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, setting: 30.0}))
    with pytest.raises(InputError, match=f"sets {setting} in its config.json"):
        policy(folder)


def test_what_is_written_is_read_again(model: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for path in model.iterdir():
        (tmp_path / "source" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "source" / "tokenizer.json").write_text("{}")
    settings = ModelConfig(path=str(tmp_path / "source"), max_length=11, dtype="float32")
    weights = [(name, parameter.detach() + 1) for name, parameter in policy(model).named_weights()]
    write_folder(settings, weights, tmp_path / "out")
    again = dict(policy(tmp_path / "out").named_weights())
    assert all(torch.equal(again[name], tensor) for name, tensor in weights)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_dtypes() -> None:
    assert model_dtype(ModelConfig(path="m", max_length=11, dtype="bfloat16")) == torch.bfloat16
    assert model_dtype(ModelConfig(path="m", max_length=11, dtype="float32")) == torch.float32
    assert max(TOKENS) < VOCABULARY
