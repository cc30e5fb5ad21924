import torch
from hypothesis import given

from learner.objective.gspo import gspo, sequence_ratio
from services.config.objectives.gspo import GspoObjective
from tests.learner.objective.strategies import SEEDS, gradient, ragged, tokens_at, tokens_of


@given(SEEDS)
def test_a_gspo_sequence_has_one_ratio_the_geometric_mean(seed: int) -> None:
    t = tokens_of(ragged(seed), on_policy=False)
    got, at = sequence_ratio(t, t.proximal_logp), 0
    for length in t.lengths.tolist():
        here = slice(at, at + length)
        expected = (t.current_logp - t.proximal_logp)[here].mean().exp()
        assert torch.allclose(got[here], expected, rtol=1e-5)
        at += length


def test_gspo_clips_whole_sequences() -> None:
    t = tokens_at([1.5, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [2, 2])
    assert gradient(gspo(t, GspoObjective()), t).tolist() == [0.0, 0.0, 1.0, 1.0]
