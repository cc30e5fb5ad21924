"""Adapters in a policy: what is trained, what stays, and what a weight comes to."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from learner.engine.policy_model import PolicyModel, inputs, probes, trained_parameters
from services.config.lora import LoraConfig
from services.config.model import Dtype, ModelConfig
from services.config.objectives.popo import PopoObjective
from services.errors import InputError
from tests.architectures import write_architecture
from tests.learner.tiny import write_tiny_model

LORA = LoraConfig(rank=4, alpha=6)
TOKENS = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"), tied=True)


def policy(
    folder: Path,
    lora: LoraConfig | None = LORA,
    *,
    seed: int = 0,
    dtype: Dtype = "float32",
    checkpointing: bool = False,
) -> PolicyModel:
    settings = ModelConfig(path=str(folder), max_length=11, dtype=dtype)
    made = PolicyModel(settings, head_chunk_tokens=2, gradient_checkpointing=checkpointing).train()
    if lora is not None:
        made.adapt(lora, seed)
    return made


def moved(adapted: PolicyModel) -> PolicyModel:
    """With factors that are all far from 0."""
    torch.manual_seed(1)
    with torch.no_grad():
        for factor in trained_parameters(adapted):
            factor.normal_(0, 0.3)
    return adapted


def logp(of: PolicyModel) -> Tensor:
    scored: Tensor = of(*inputs(probes([TOKENS], packed=True), torch.device("cpu")))[0]
    return scored


def named(of: PolicyModel) -> dict[str, Tensor]:
    return {name: of.whole(name, weight) for name, weight in of.named_weights()}


def test_at_first_it_is_the_model_to_the_last_bit(model: Path) -> None:
    before = torch.get_rng_state()
    adapted = policy(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(logp(adapted), logp(policy(model, None)))
    assert not torch.equal(logp(moved(adapted)), logp(policy(model, None)))


def test_first_factors_depend_on_the_seed_alone(model: Path) -> None:
    torch.manual_seed(5)
    first, again, other = (trained_parameters(policy(model, seed=seed)) for seed in (3, 3, 4))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_factors_alone_are_trained_and_a_predictor(model: Path) -> None:
    adapted = policy(model)
    assert {p.shape for p in trained_parameters(adapted)} == {
        torch.Size(shape) for shape in [(4, 32), (32, 4), (16, 4), (4, 64), (64, 4)]
    }
    count = len(trained_parameters(adapted))
    assert count == 2 * 7 * 2
    adapted.serve(PopoObjective())
    assert adapted.predictor is not None
    assert len(trained_parameters(adapted)) == count + len(list(adapted.predictor.parameters()))


@pytest.mark.parametrize("architecture", ["qwen2_tied", "qwen3_moe"])
def test_weights_keep_the_names_and_shapes_of_the_checkpoint(tmp_path: Path, architecture: str) -> None:
    folder = write_architecture(tmp_path / "model", architecture)
    plain, adapted = policy(folder, None), policy(folder)
    expected = {name: tensor.shape for name, tensor in plain.under_checkpoint_names(named(plain).items())}
    assert {name: tensor.shape for name, tensor in adapted.under_checkpoint_names(named(adapted).items())} == expected


def test_a_weight_comes_to_what_its_layer_computes_with_and_stays_what_it_was(model: Path) -> None:
    adapted = moved(policy(model))
    frozen = {name: weight.clone() for name, weight in adapted.named_weights()}
    whole = named(adapted)
    assert all(torch.equal(weight, frozen[name]) for name, weight in adapted.named_weights())
    plain = policy(model, None)
    with torch.no_grad():
        for name, weight in plain.named_weights():
            weight.copy_(whole[name])
    assert torch.allclose(logp(plain), logp(adapted), rtol=0, atol=1e-5)
    name = "model.layers.0.self_attn.q_proj.weight"
    a, b = adapted.factors(name)
    assert torch.allclose(whole[name], frozen[name] + 1.5 * b @ a, atol=1e-6)
    assert whole["model.norm.weight"] is not None
    assert adapted.factors("model.norm.weight") == ()


def test_in_bfloat16_a_weight_is_added_up_in_float32_and_rounded_once(model: Path) -> None:
    adapted = moved(policy(model, dtype="bfloat16"))
    assert {p.dtype for p in trained_parameters(adapted)} == {torch.bfloat16}
    name = "model.layers.1.mlp.up_proj.weight"
    a, b = (factor.double() for factor in adapted.factors(name))
    exact = dict(adapted.named_weights())[name].double() + 1.5 * b @ a
    assert torch.allclose(named(adapted)[name].double(), exact, rtol=2**-8, atol=1e-6)


def test_activations_that_are_computed_again_give_the_same_gradient(model: Path) -> None:
    kept, again = (moved(policy(model, checkpointing=checkpointing)) for checkpointing in (False, True))
    for one in (kept, again):
        logp(one).sum().backward()
    for a, b in zip(trained_parameters(kept), trained_parameters(again), strict=True):
        assert a.grad is not None
        assert float(a.grad.norm()) > 0
        assert b.grad is not None
        assert torch.allclose(a.grad, b.grad, atol=1e-6)
    assert all(weight.grad is None for _, weight in again.named_weights())


def test_a_target_that_the_model_lacks_is_refused(model: Path) -> None:
    with pytest.raises(InputError, match=r'learner\.lora\.targets: "lm_head" is not a layer of model\.path = '):
        policy(model, LoraConfig(targets=("lm_head",)))
