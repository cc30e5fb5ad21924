"""How an objective is added: the three places, here in one file, and a learner step that uses them.

The example is GMPO (arXiv:2507.20673): PPO's clip on log-ratios, one-sided and token by token, then their geometric mean
over the sequence.
"""

from typing import Annotated, ClassVar, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor

from learner.batch.step_batch import assemble
from learner.objective import OBJECTIVES, Objective
from learner.objective.tokens import Tokens
from learner.step.learner_step import learner_step
from services.config.learner import LearnerConfig
from services.config.objective import DEVIATIONS, Aggregation, ObjectiveConfig, ObjectiveSettings
from tests.fakes.train_engine import BigramEngine
from tests.learner.tiny import scored_group

# 1. Settings: a class in services/config/objective.py, and its name in the union there.


class GmpoObjective(ObjectiveSettings):
    """GMPO: geometric mean of one-sidedly clipped ratios."""

    published = DEVIATIONS
    aggregations: ClassVar[tuple[Aggregation, ...]] = ("sequence_mean",)
    type: Literal["gmpo"] = "gmpo"
    log_clip: float = Field(default=0.4, gt=0.0)


class Settings(LearnerConfig):
    objective: Annotated[ObjectiveConfig | GmpoObjective, Field(discriminator="type")]


# 2. The function: a file in learner/objective/.


def gmpo(tokens: Tokens, settings: GmpoObjective) -> Tensor:
    """A prod_t clip(r_t)^(1 / L) on each token, r = current/proximal. [T]; to be aggregated by sequence_mean."""
    sign = tokens.advantage.sign()
    log_r = sign * torch.minimum(sign * (tokens.logp - tokens.proximal_logp), torch.tensor(settings.log_clip))
    return tokens.spread(tokens.sequence_mean(log_r).exp()) * tokens.advantage


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    # 3. The line: in OBJECTIVES.
    monkeypatch.setitem(OBJECTIVES, "gmpo", Objective(gmpo))


def moved(rows_per_micro_batch: int, **objective: object) -> Tensor:
    settings = Settings.model_validate(
        {
            "steps": 1,
            "groups_per_step": 3,
            "row_tokens": 24,
            "rows_per_micro_batch": rows_per_micro_batch,
            "mini_batches": 3,
            "objective": {"type": "gmpo", **objective},
        }
    )
    assert settings.advantage.normalize == "sample_std"  # what it was published with
    engine = BigramEngine()
    batch = assemble([scored_group(i, rewards=[1.0, 0.0, 0.25]) for i in range(3)], 0, settings)
    report = learner_step(engine, batch, settings, learning_rate=2.0)
    assert (report.skipped, report.optimizer_steps) == (None, 3)
    return engine.logits - BigramEngine().logits


def test_it_takes_steps_that_do_not_depend_on_how_they_are_cut_up() -> None:
    assert moved(1).norm() > 0.1
    assert torch.allclose(moved(1), moved(9), atol=1e-6)


def test_its_settings_matter() -> None:
    assert not torch.allclose(moved(9), moved(9, log_clip=1e-3), atol=1e-4)
