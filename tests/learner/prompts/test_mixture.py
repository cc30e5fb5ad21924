"""Sources get their shares of the prompts; group DRO gives more to the worst of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.prompts.mixture import Mixture
from services.config.samplers import GroupDroMixture, WeightsMixture

WEIGHTS = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=6)


def given_out(mixture: Mixture, ended: list[bool], prompts: int) -> list[int]:
    """How many prompts each source gets."""
    counts = [0] * len(ended)
    for _ in range(prompts):
        source = mixture.choose(ended)
        assert source == mixture.choose(ended)
        mixture.note(source, ended)
        counts[source] += 1
    return counts


@given(weights=WEIGHTS, prompts=st.integers(0, 300))
def test_each_source_has_its_share_to_within_the_number_of_sources(weights: list[float], prompts: int) -> None:
    counts = given_out(Mixture(WeightsMixture(), weights), [False] * len(weights), prompts)
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - prompts * weight / sum(weights)) < len(weights)


def test_what_an_ended_source_would_get_goes_to_the_others_by_their_weights() -> None:
    mixture = Mixture(WeightsMixture(), [1.0, 1.0, 2.0])
    assert given_out(mixture, [False, False, False], 40) == [10, 10, 20]
    assert given_out(mixture, [False, True, False], 30) == pytest.approx([10, 0, 20], abs=1)


@given(rewards=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4), floor=st.floats(0.05, 0.9))
def test_group_dro_gives_more_to_the_worst_source_and_never_less_than_the_floor(
    rewards: list[float], floor: float
) -> None:
    mixture = Mixture(GroupDroMixture(step_size=0.5, floor=floor, smoothing_groups=1), [1.0] * len(rewards))
    for step in range(200):
        mixture.advance(step)
        for source, reward in enumerate(rewards):
            mixture.observe(source, reward)
    shares = mixture.shares
    assert sum(shares) == pytest.approx(1.0)
    assert all(share >= floor / len(rewards) - 1e-12 for share in shares)
    worst, best = rewards.index(min(rewards)), rewards.index(max(rewards))
    assert shares[worst] >= shares[best] - 1e-12
    if min(rewards) < sorted(rewards)[1] - 0.2:
        assert shares[worst] > 0.9 * (floor / len(rewards) + 1.0 - floor)


def test_group_dro_is_the_exponentiated_gradient_of_the_running_losses() -> None:
    mixture = Mixture(GroupDroMixture(step_size=0.1, floor=0.01, smoothing_groups=2), [1.0, 3.0])
    for reward in (1.0, 0.0):
        mixture.observe(0, reward)  # losses 0 and 1: on average 0.5
    mixture.observe(1, 0.25)
    mixture.advance(4)
    q = [0.25 * 2.718281828459045 ** (4 * 0.1 * 0.5), 0.75 * 2.718281828459045 ** (4 * 0.1 * 0.75)]
    assert mixture.shares == pytest.approx(
        [0.01 * own + 0.99 * one / sum(q) for own, one in zip((0.25, 0.75), q, strict=True)], rel=1e-12
    )


def test_a_source_that_is_sampled_more_is_not_updated_more() -> None:
    def shares(groups: int) -> list[float]:
        mixture = Mixture(GroupDroMixture(smoothing_groups=1), [1.0, 1.0])
        for step in range(20):
            mixture.advance(step)
            mixture.observe(0, 0.5)
            for _ in range(groups):
                mixture.observe(1, 0.5)
        return mixture.shares

    assert shares(1) == pytest.approx(shares(9))


@given(weights=WEIGHTS, seed=st.lists(st.floats(0.0, 1.0), min_size=5, max_size=20))
def test_after_a_round_trip_it_goes_on_the_same(weights: list[float], seed: list[float]) -> None:
    settings, ended = GroupDroMixture(step_size=1.0), [False] * len(weights)
    mixture = Mixture(settings, weights)

    def play(of: Mixture, first: int) -> list[int]:
        sources = []
        for step, reward in enumerate(seed, start=first):
            of.advance(step)
            source = of.choose(ended)
            of.note(source, ended)
            of.observe(source, reward)
            sources.append(source)
        return sources

    play(mixture, 0)
    again = Mixture(settings, weights)
    again.restore(json.loads(json.dumps(mixture.to_dict())))
    assert play(again, len(seed)) == play(mixture, len(seed))
    assert again.shares == mixture.shares
