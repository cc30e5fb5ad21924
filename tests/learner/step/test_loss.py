"""The loss returns its value and a record, and leaves everything that it was given as it was."""

import pytest
import torch

from learner.batch.step_batch import assemble
from learner.engine.protocol import TokenStatistics
from learner.step.loss import Advantages, StepLoss, StepObjective
from learner.step.optimizer_step import OptimizerStep
from services.config.learner import LearnerConfig
from tests.fakes.train_engine import BigramEngine
from tests.learner.every_objective import settings
from tests.learner.talks import talks, turn
from tests.learner.tiny import scored_group

CONFIG = settings("owpo", advantage={"baseline": "mean"}, stale_tokens="mask", max_lag=0)


def step(config: LearnerConfig = CONFIG) -> tuple[OptimizerStep, StepLoss]:
    group = scored_group(0, rewards=[1.0, 0.0], responses=[[1, 2], [3]], versions=[[(0, 1), (2, 1)], [(2, 1)]])
    made = OptimizerStep(BigramEngine(), assemble([group], 2, config), config)
    given = Advantages(torch.tensor([1.0, -1.0]))
    objective = StepObjective(made.inputs, made.score(weights_will_move=False), config)
    return made, StepLoss(objective, lambda places, _: given.at(places))


def statistics(logp: list[float]) -> TokenStatistics:
    tokens = torch.tensor(logp, requires_grad=True)
    return TokenStatistics(tokens, torch.ones(len(logp)), torch.full((len(logp),), 0.5))


def test_the_record_says_what_the_loss_saw_of_each_token() -> None:
    made, loss = step()
    (micro_batch,) = made.packing.micro_batches
    value, record = loss(micro_batch, statistics([-1.0, -2.0, -3.0]))
    assert value.requires_grad
    assert not record.loss.requires_grad
    assert torch.equal(value.detach(), record.loss)
    order = record.places.token_index.argsort()
    masked = int((~made.batch.mask).nonzero())
    assert record.logp.tolist() == [-1.0, -2.0, -3.0]
    assert record.entropy.tolist() == [1.0] * 3
    assert [i for i, w in enumerate(record.one_way_weight[order].tolist()) if w == 0.0] == [masked]


def test_a_masked_token_has_no_gradient() -> None:
    made, loss = step()
    (micro_batch,) = made.packing.micro_batches
    seen = statistics([-1.0, -2.0, -3.0])
    value, record = loss(micro_batch, seen)
    (gradient,) = torch.autograd.grad(value, seen.logp)
    counts = made.batch.mask[record.places.token_index]
    assert gradient[~counts].abs().max() == 0
    assert gradient[counts].abs().min() > 0


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean"])
def test_asking_twice_gives_the_same(aggregation: str) -> None:
    made, loss = step(settings("owpo", advantage={"baseline": "mean"}, aggregation=aggregation))
    (micro_batch,) = made.packing.micro_batches
    first, second = (loss(micro_batch, statistics([-1.0, -2.0, -3.0]))[0] for _ in range(2))
    assert torch.equal(first, second)


def test_a_token_weighs_what_its_turn_earned_and_the_outcome_of_its_conversation() -> None:
    changed = {"baseline": "mean", "turns": {"outcome_weight": 0.5}}
    config = settings("reinforce", advantage=changed, stale_tokens="mask", max_lag=0)
    # The verifier gives 0 and 1. The second turn of the first conversation has nothing to be compared with.
    group = talks(0, [[turn(1, reward=0.25), turn(2, [5], reward=0.5)], [turn(2, reward=0.25)]], prompt=[1, 2])
    made = OptimizerStep(BigramEngine(), assemble([group], 0, config), config)
    objective = StepObjective(made.inputs, made.score(weights_will_move=False), config)
    outcome = made.baseline.advantages(objective, made.inputs.everything, statistics([-1.0] * 5))
    tokens = objective.tokens(made.inputs.everything, torch.full((5,), -1.0), outcome)
    assert outcome.advantage.tolist() == [-0.5, 0.5]
    assert tokens.advantage.tolist() == [0.25 - 0.25, -0.25, -0.25, -0.25 + 0.25, -0.25 + 0.25]
