"""Which policies are scored before a batch's first optimizer step, and how many log-probs are missing."""

import math

import pytest
import torch

from learner.batch.step_batch import assemble
from learner.step.optimizer_step import OptimizerStep
from learner.step.scores import Scores
from tests.fakes.train_engine import BigramEngine
from tests.learner.every_objective import settings
from tests.learner.tiny import scored_group


def scored(variant: str, *, weights_will_move: bool, is_current: bool) -> tuple[Scores, list[str]]:
    engine, config = BigramEngine(), settings(variant)
    engine.reference_is_current = is_current
    engine.teachers = [BigramEngine(seed=5).logits] * len(config.teachers)
    batch = assemble([scored_group(0, rewards=[1.0, 0.0])], 0, config)
    return OptimizerStep(engine, batch, config).score(weights_will_move=weights_will_move), engine.calls


@pytest.mark.parametrize(
    ("variant", "weights_will_move", "is_current", "calls"),
    [
        ("owpo", False, True, []),
        ("owpo", False, False, ["reference"]),
        ("owpo", True, True, ["reference"]),  # which is the proximal policy, too
        ("owpo", True, False, ["reference", "current"]),
        ("grpo", True, True, ["current"]),
        ("reinforce", True, False, []),
        ("mopd", False, True, ["teacher 0", "teacher 1"]),
    ],
)
def test_only_what_the_objective_needs_and_cannot_know_is_scored(
    variant: str, weights_will_move: bool, is_current: bool, calls: list[str]
) -> None:
    scores, called = scored(variant, weights_will_move=weights_will_move, is_current=is_current)
    assert called == calls
    assert scores.weights_moved == weights_will_move
    assert (scores.reference_logp is None) == ("reference" not in calls)
    if calls == ["reference"] and weights_will_move:
        assert scores.proximal_logp is scores.reference_logp


def test_hidden_states_of_the_reference_are_means_over_sequences() -> None:
    scores, _ = scored("popo held close", weights_will_move=False, is_current=False)
    assert scores.reference_hidden is not None
    assert scores.reference_hidden.shape == (2, 17)


@pytest.mark.parametrize("reference", [None, [0.0, math.nan, math.inf]])
def test_log_probs_that_are_not_finite_are_missing_where_tokens_count(reference: list[float] | None) -> None:
    teachers = torch.tensor([[0.0, 0.0, -math.inf], [math.nan, 0.0, 0.0]])
    logp = None if reference is None else torch.tensor(reference)
    scores = Scores(logp, None, None, teachers, weights_moved=False)
    mask = torch.tensor([False, True, True])
    assert scores.missing(mask) == (1 if reference is None else 3)
    assert Scores(logp, None, None, teachers[:0], weights_moved=False).missing(mask) == (0 if reference is None else 2)
