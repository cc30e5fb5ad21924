"""Loss and gradient against TRL 1.16's GRPOTrainer, for the objectives that both have."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.objective import OBJECTIVES
from learner.objective.aggregate import aggregate, token_scale
from learner.objective.ratios import segment_sum
from tests.learner.every_objective import settings
from tests.learner.objective.strategies import ragged, tokens_of

LONGEST = 8
COMMON = {"importance_sampling_level": "token", "epsilon_low": 0.2, "epsilon_high": 0.2, "delta": None}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({"type": "grpo"}, {"loss_type": "grpo"}),
    "dr_grpo": ({"type": "dr_grpo"}, {"loss_type": "dr_grpo"}),
    "dapo": ({"type": "dapo"}, {"loss_type": "dapo", "epsilon_high": 0.28, "delta": 3.0}),
    "cispo": ({"type": "cispo"}, {"loss_type": "cispo", "epsilon_high": 1.2}),  # there the bound itself
    "sapo": ({"type": "sapo"}, {"loss_type": "sapo"}),
    "gspo": ({"type": "gspo", "clip": {"low": 0.2, "high": 0.2}}, {"importance_sampling_level": "sequence"}),
}


def theirs(values: dict[str, Any], logp: Tensor, old_logp: Tensor, mask: Tensor, advantage: Tensor) -> Tensor:
    """GRPOTrainer._compute_loss on log-probs as they are. [n, LONGEST] each; advantage: [n]."""
    settings = {**COMMON, "loss_type": "grpo", **values}
    arguments = SimpleNamespace(
        delta=settings["delta"],
        use_bias_correction_kl=False,
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05,
        steps_per_generation=1,
    )
    same = SimpleNamespace(
        num_processes=1,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
    )
    stub = SimpleNamespace(
        **{name: settings[name] for name in COMMON if name != "delta"},
        loss_type=settings["loss_type"],
        args=arguments,
        accelerator=same,
        model=SimpleNamespace(training=True),
        beta=0.0,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=5,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
    )
    none = torch.zeros(len(logp), 1, dtype=torch.int64)
    inputs = {
        "prompt_ids": none,
        "prompt_mask": none,
        "completion_ids": torch.zeros_like(mask, dtype=torch.int64),
        "completion_mask": mask.long(),
        "advantages": advantage,
        "old_per_token_logps": old_logp,
        "num_items_in_batch": mask.sum(),
    }
    from trl.trainer import grpo_trainer as trainer  # seconds, for the process that runs this file alone

    compute: Any = trainer.GRPOTrainer._compute_loss  # the stub has what it reads of a trainer
    loss: Tensor = compute(stub, None, inputs)
    return loss


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_loss_and_gradient_agree(case: str, seed: int) -> None:
    mine, values = CASES[case]
    b = ragged(seed, sequences=9)
    tokens = tokens_of(b, on_policy=False)
    place = torch.zeros(9, LONGEST, dtype=torch.bool)
    for row, length in enumerate(tokens.lengths.tolist()):
        place[row, :length] = True

    def padded(flat: Tensor) -> Tensor:
        return torch.full((9, LONGEST), -1.0).masked_scatter(place, flat)

    config = settings(mine["type"], objective=mine)
    ones = torch.ones(len(tokens.logp), dtype=torch.bool)
    scale = token_scale(
        config.aggregation,
        ones,
        tokens.lengths,
        step_sequences=9,
        step_tokens=len(ones),
        constant_tokens=config.constant_tokens,
    )
    loss = aggregate(-OBJECTIVES[mine["type"]].surrogate(tokens, config.objective), scale)
    (gradient,) = torch.autograd.grad(loss, tokens.logp)
    other = tokens.current_logp.clone().requires_grad_()
    expected = theirs(values, padded(other), padded(tokens.proximal_logp), place, b["advantage"])
    (expected_gradient,) = torch.autograd.grad(expected, other)
    assert segment_sum(gradient.abs(), tokens.lengths).max() > 1e-4
    assert abs((loss - expected).item()) < 1e-5
    assert float((gradient - expected_gradient).abs().max()) < 1e-5
