"""Token losses and advantages against verl 0.9's core_algos, for those that both have.

verl is not a dependency, because it needs ray; without it these tests are skipped.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.objective import OBJECTIVES
from learner.objective.advantage import group_advantages
from learner.objective.aggregate import aggregate, token_scale
from services.config.advantage import AdvantageConfig
from tests.learner.every_objective import settings
from tests.learner.objective.strategies import ragged, tokens_of

core = pytest.importorskip(
    "verl.trainer.ppo.core_algos", reason="issue 3 (2026-11-21): needs verl==0.9.1 and ray", exc_type=ImportError
)

LONGEST = 8
CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "dapo": ({"type": "dapo"}, "vanilla", {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}),
    "gspo": ({"type": "gspo"}, "gspo", {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}),
    "cispo": ({"type": "cispo"}, "cispo", {"clip_ratio_low": 10.0, "clip_ratio_high": 0.2}),
    "sapo": ({"type": "sapo"}, "sapo", {"tau_pos": 1.0, "tau_neg": 1.05}),
}
VERL_AGGREGATION = {"token_mean": "token-mean", "sequence_mean": "seq-mean-token-mean"}


class Values(core.ActorConfig):  # type: ignore[misc, name-defined]
    """Settings by attribute, without the checks of a whole run."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_loss_and_gradient_agree(case: str, seed: int) -> None:
    mine, name, values = CASES[case]
    b = ragged(seed, sequences=9)
    tokens = tokens_of(b, on_policy=False)
    place = torch.zeros(9, LONGEST, dtype=torch.bool)
    for row, length in enumerate(tokens.lengths.tolist()):
        place[row, :length] = True

    def padded(flat: Tensor) -> Tensor:
        return torch.full((9, LONGEST), -1.0).masked_scatter(place, flat)

    config = settings(mine["type"], objective=mine)
    ones = torch.ones(len(tokens.logp), dtype=torch.bool)
    scale = token_scale(config.aggregation, ones, tokens.lengths, step_sequences=9, step_tokens=len(ones))
    loss = aggregate(-OBJECTIVES[mine["type"]].surrogate(tokens, config.objective), scale)
    (gradient,) = torch.autograd.grad(loss, tokens.logp)

    common = {"clip_ratio": 0.2, "clip_ratio_c": 3.0, "global_batch_info": {}, "policy_loss": Values(**values)}
    other = tokens.current_logp.clone().requires_grad_()
    expected, _ = core.get_policy_loss_fn(name)(
        old_log_prob=padded(tokens.proximal_logp),
        log_prob=padded(other),
        advantages=b["advantage"][:, None].expand(9, LONGEST),
        response_mask=place.float(),
        loss_agg_mode=VERL_AGGREGATION[config.aggregation],
        config=Values(**{**common, **values}),
    )
    (expected_gradient,) = torch.autograd.grad(expected, other)
    assert gradient.abs().max() > 1e-4
    assert abs(loss.item() - expected.item()) < 1e-5
    assert float((gradient - expected_gradient).abs().max()) < 1e-5


ADVANTAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({"baseline": "mean", "normalize": "sample_std"}, {}),
    "rloo": ({"baseline": "leave_one_out"}, {}),
    "opo": ({"baseline": "length_weighted"}, {}),
}


@pytest.mark.parametrize("case", ADVANTAGES)
@pytest.mark.parametrize("seed", range(5))
def test_advantages_agree(case: str, seed: int) -> None:
    mine, values = ADVANTAGES[case]
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LONGEST, (12,), generator=random)
    place = torch.arange(LONGEST)[None] < lengths[:, None]
    reward = torch.rand(12, generator=random, dtype=torch.float64)
    group = torch.arange(12) // 4
    rewards = torch.zeros(12, LONGEST, dtype=torch.float64)
    rewards[:, 0] = reward
    expected, _ = core.get_adv_estimator_fn(case)(
        token_level_rewards=rewards,
        response_mask=place.double(),
        index=np.array([str(g) for g in group.tolist()]),
        **values,
    )
    got = group_advantages(reward, group, lengths, AdvantageConfig.model_validate(mine))
    assert torch.allclose(got.double(), expected[:, 0], atol=1e-5)
