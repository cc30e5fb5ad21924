import torch
from hypothesis import given

from tests.learner.objective.strategies import SEEDS, ragged, tokens_of


@given(SEEDS)
def test_the_mean_of_what_was_spread_is_what_was_spread(seed: int) -> None:
    tokens = tokens_of(ragged(seed))
    each = torch.arange(len(tokens.lengths), dtype=torch.float32)
    spread = tokens.spread(each)
    assert spread.shape == tokens.logp.shape
    assert torch.allclose(tokens.sequence_mean(spread)[tokens.lengths > 0], each[tokens.lengths > 0])


@given(SEEDS)
def test_hidden_states_are_averaged_by_sequence(seed: int) -> None:
    tokens = tokens_of(ragged(seed))
    assert tokens.sequence_mean(torch.zeros(len(tokens.logp), 3)).shape == (len(tokens.lengths), 3)
