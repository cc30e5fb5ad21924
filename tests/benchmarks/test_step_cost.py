"""The sides of the step-cost benchmark are what they are called, and its interval is what it says."""

import math

import pytest
import torch

from benchmarks.ratios import Ratio, ratio
from benchmarks.step_cost import CRAMPED, ROOMY, SIDES, made_up_batch
from learner.batch.packing import pack, pack_whole_groups


def test_groups_fit_the_roomy_micro_batches_and_not_the_cramped_ones() -> None:
    batch = made_up_batch()
    whole, plain = pack_whole_groups(batch, **ROOMY), pack(batch, **ROOMY)
    assert whole is not None
    assert len(whole) == len(plain) > 1  # otherwise there would be no forward to save
    padded, plainly = (sum(m.token_ids.numel() for m in side) for side in (whole, plain))
    assert padded == pytest.approx(plainly, rel=0.02)
    assert pack_whole_groups(batch, **CRAMPED) is None


def test_every_side_has_settings_of_its_own() -> None:
    made = [(side.settings(), side.ratcheted) for side in SIDES]
    assert all(made.count(one) == 1 for one in made)


def test_the_interval_encloses_the_median_as_often_as_it_says() -> None:
    assert ratio([3.0, 1.0, 2.0]) == Ratio(2.0, 1.0, 3.0)
    random = torch.Generator().manual_seed(0)
    for count in (7, 15, 16):
        draws = torch.randn(2000, count, generator=random).tolist()
        enclosed = sum(found.low <= 0 <= found.high for found in map(ratio, draws)) / len(draws)
        assert 0.94 <= enclosed <= 1
        assert math.isclose(ratio(draws[0]).median, float(torch.tensor(draws[0]).double().quantile(0.5)), abs_tol=1e-6)
