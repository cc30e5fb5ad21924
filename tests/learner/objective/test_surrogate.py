import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.objective.surrogate import pessimistic


@given(st.floats(0.01, 30), st.floats(-3, -0.01))
def test_dual_clip_bounds_the_loss_of_a_token_that_became_likely(ratio: float, advantage: float) -> None:
    got = pessimistic(torch.tensor([ratio]), 0.8, 1.28, torch.tensor([advantage]), 3.0)
    assert got.item() == pytest.approx(min(max(ratio, 0.8), 3.0) * advantage, rel=1e-5)
