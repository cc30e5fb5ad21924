import torch

from learner.objective.distillation import distillation
from tests.learner.objective.strategies import gradient, ragged, tokens_of


def test_without_an_outcome_the_verdict_does_not_matter() -> None:
    tokens = tokens_of(ragged(3))
    got = gradient(distillation(tokens, beta=2.0, outcome=0.0, weights=[1.0, 0.0]), tokens)
    assert torch.allclose(got, 2.0 * (tokens.teacher_logp[0] - tokens.proximal_logp))
