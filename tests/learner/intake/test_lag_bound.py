"""No token that is trained on is older than max_lag, unless the rule for stale tokens says so, whatever happens (world.py)."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.batch.step_batch import batch_of
from learner.intake.gathering import Gathered
from learner.intake.order import window_of
from tests.learner.intake.world import World

STEPS = 8
seeds = st.integers(0, 2**32)
sizes = st.integers(1, 3)
lags = st.integers(0, 3)
orders = st.sampled_from([(), ("learner.order=dispatch",), ("learner.order=dispatch", "learner.window_fraction=0.5")])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Prompts die by the hundred here, and each is an error in the log."""
    logger = logging.getLogger("ratchet.learner")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def trained(world: World, gathered: Gathered) -> Iterator[tuple[int, bool]]:
    """How far each token of the groups that reach the loss is from the learner's version, and whether it counts."""
    batch = batch_of(gathered.kept, gathered.tally, world.state.policy_version)
    tokens = [token for group in gathered.kept for one in group.kept for token in one.trajectory.token_ids.numpy()]
    lags = [world.state.policy_version - world.born[token] for token in tokens]
    assert lags == batch.lag_steps.tolist()
    return zip(map(abs, lags), batch.mask.tolist(), strict=True)


def run(folder: Path, seed: int, rule: str, max_lag: int, groups: int, order: tuple[str, ...], *, calm: bool) -> World:
    own = (f"learner.stale_tokens={rule}", f"learner.max_lag={max_lag}", f"learner.groups_per_step={groups}", *order)
    return World(folder, seed, *own, calm=calm)


@given(seeds, lags, sizes, orders)
@settings(max_examples=30, deadline=None)
def test_under_drop_no_group_with_an_older_token_is_trained_on(
    folder: Path, seed: int, max_lag: int, groups: int, order: tuple[str, ...]
) -> None:
    world = run(folder, seed, "drop", max_lag, groups, order, calm=False)
    for _ in range(STEPS):
        gathered = world.step()
        assert all(counts and lag <= max_lag for lag, counts in trained(world, gathered))
        for group in gathered.groups:  # and none is called stale without one
            tokens = np.concatenate([one.token_ids.numpy() for one in group.group.trajectories])
            too_old = any(abs(world.state.policy_version - world.born[token]) > max_lag for token in tokens)
            assert (gathered.drops.get(group.group.prompt.group_id) == "stale") <= too_old
        world.finish(gathered)


@given(seeds, lags, sizes, orders)
@settings(max_examples=30, deadline=None)
def test_under_mask_a_token_counts_exactly_if_it_is_not_older(
    folder: Path, seed: int, max_lag: int, groups: int, order: tuple[str, ...]
) -> None:
    world = run(folder, seed, "mask", max_lag, groups, order, calm=False)
    for _ in range(STEPS):
        gathered = world.step()
        assert all(counts == (lag <= max_lag) for lag, counts in trained(world, gathered))
        world.finish(gathered)


@given(seeds, lags, sizes, orders)
@settings(max_examples=30, deadline=None)
def test_under_train_every_token_counts_and_none_is_called_stale(
    folder: Path, seed: int, max_lag: int, groups: int, order: tuple[str, ...]
) -> None:
    world = run(folder, seed, "train", max_lag, groups, order, calm=False)
    for _ in range(STEPS):
        gathered = world.step()
        assert all(counts for _, counts in trained(world, gathered))
        assert "stale" not in gathered.drops.values()
        world.finish(gathered)


@given(seeds, lags, sizes, orders)
@settings(max_examples=30, deadline=None)
def test_a_step_has_its_groups_and_none_of_them_twice(
    folder: Path, seed: int, max_lag: int, groups: int, order: tuple[str, ...]
) -> None:
    """Whatever dies, comes twice, is issued again or sent again."""
    world = run(folder, seed, "drop", max_lag, groups, order, calm=False)
    for _ in range(STEPS):
        gathered = world.step()
        assert len(gathered.kept) == groups
        world.finish(gathered)
        assert len(set(world.taken)) == len(world.taken)


@given(seeds, lags, sizes, orders)
@settings(max_examples=30, deadline=None)
def test_no_more_groups_are_out_than_the_lag_allows(
    folder: Path, seed: int, max_lag: int, groups: int, order: tuple[str, ...]
) -> None:
    world = run(folder, seed, "train", max_lag, groups, order, calm=True)
    for _ in range(STEPS):
        world.finish(world.step())
    assert world.most_out <= (max_lag + 1) * groups


@given(seeds, lags, sizes, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_in_order_of_dispatch_no_more_groups_than_the_window_overtake_another(
    folder: Path, seed: int, max_lag: int, groups: int, fraction: float
) -> None:
    order = ("learner.order=dispatch", f"learner.window_fraction={fraction}")
    world = run(folder, seed, "train", max_lag, groups, order, calm=False)
    window = window_of(world.config.learner)
    assert window is not None
    for _ in range(STEPS):
        before = world.restarts
        gathered = world.step()
        sequence = [*world.taken, *(group.prompt.sequence_number for group in gathered.kept)]
        for place, number in enumerate(sequence):
            if number not in world.died:
                assert sum(other > number for other in sequence[:place]) <= window
        world.finish(gathered)
        assert world.restarts == before or world.taken == []


@given(seeds, lags, sizes, st.sampled_from(["drop", "mask", "train"]))
@settings(max_examples=30, deadline=None)
def test_in_order_of_dispatch_nothing_grows_stale_while_replicas_keep_up(
    folder: Path, seed: int, max_lag: int, groups: int, rule: str
) -> None:
    world = run(folder, seed, rule, max_lag, groups, ("learner.order=dispatch",), calm=True)
    for _ in range(STEPS):
        gathered = world.step()
        assert gathered.tally.masked_tokens == 0
        assert "stale" not in gathered.drops.values()
        assert all(lag <= max_lag for lag, _ in trained(world, gathered))
        world.finish(gathered)


@given(seeds, sizes, st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_a_window_costs_no_more_lag_than_the_groups_that_it_lets_past(
    folder: Path, seed: int, groups: int, max_lag: int
) -> None:
    world = run(
        folder, seed, "train", max_lag, groups, ("learner.order=dispatch", "learner.window_fraction=0.5"), calm=True
    )
    window = window_of(world.config.learner) or 0
    for _ in range(STEPS):
        gathered = world.step()
        assert all(lag <= max_lag + -(-window // groups) for lag, _ in trained(world, gathered))
        world.finish(gathered)
