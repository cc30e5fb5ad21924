"""Which groups and sequences reach the loss under which settings, and what is counted of the others."""

import math
from typing import get_args

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.batch.sift import SiftedGroup, Tally, sift, tally
from learner.batch.step_batch import assemble
from services.config.learner import LearnerConfig
from services.errors import InputError
from services.wire.score import ScoredGroup
from services.wire.verdict import Score
from tests.learner.tiny import scored_group


def settings(**changes: object) -> LearnerConfig:
    return LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1, "max_lag": 2, **changes})


TWO = [[1, 2], [3, 4, 5]]
STALE_TOKENS = get_args(LearnerConfig.model_fields["stale_tokens"].annotation)


@given(st.floats(-10, 10), st.integers(2, 9))
def test_equal_rewards_are_dropped_and_counted_but_still_in_the_pass_rate(reward: float, count: int) -> None:
    batch = assemble([scored_group(0, rewards=[reward] * count), scored_group(1, rewards=[1.0, 0.0])], 0, settings())
    assert len(batch) == 2
    assert batch.tally.dropped_groups == {"zero_variance": 1}
    assert (batch.tally.groups, batch.tally.sequences) == (2, count + 2)
    assert batch.tally.pass_rate == pytest.approx((count * (reward > 0) + 1) / (count + 2))


@pytest.mark.parametrize("rewards", [[0.1 + 0.2, 0.3, 0.3], [0.1 + 0.7, 0.8], [-1e9 / 7, -1e9 * (1 / 7)]])
def test_rewards_that_differ_by_rounding_alone_are_equal(rewards: list[float]) -> None:
    assert len(set(rewards)) > 1
    found = assemble([scored_group(0, rewards=rewards)], 0, settings()).tally
    assert (found.dropped_groups, found.zero_variance_groups) == ({"zero_variance": 1}, 1)


@pytest.mark.parametrize("rewards", [[1e-9, 0.0], [0.3, 0.3 + 1e-9], [1e9, 1e9 + 1.0]])
def test_small_differences_of_rewards_are_variance(rewards: list[float]) -> None:
    found = assemble([scored_group(0, rewards=rewards)], 0, settings())
    assert (len(found), found.tally.zero_variance_groups) == (2, 0)


@pytest.mark.parametrize(
    ("rewards", "by_reward", "by_verdict"),
    [
        ([0.0, -0.5, -1.0], None, "zero_variance"),  # all wrong, and of different lengths
        ([1.0, 0.5, 0.75], None, "zero_variance"),  # all right
        ([1.0, -0.5, 0.0], None, None),
        ([0.0, 0.0, 0.0], "zero_variance", "zero_variance"),
    ],
)
def test_variance_is_that_of_rewards_or_of_verdicts(
    rewards: list[float], by_reward: str | None, by_verdict: str | None
) -> None:
    group = scored_group(0, rewards=rewards)  # correct above 0
    for what, drop in (("reward", by_reward), ("verdict", by_verdict)):
        assert sift(group, 0, settings(zero_variance_of=what)).drop == drop
        assert sift(group, 0, settings(zero_variance_of=what, zero_variance="train")).drop is None


def test_equal_rewards_are_no_variance_though_verdicts_differ() -> None:
    group = scored_group(0, rewards=[0.5, 0.5])
    scores = tuple(
        msgspec.structs.replace(s, verdict=v) for s, v in zip(group.scores, ("correct", "incorrect"), strict=True)
    )
    differing = msgspec.structs.replace(group, scores=scores)
    assert sift(differing, 0, settings(zero_variance_of="verdict")).drop == "zero_variance"


def test_only_the_verdicts_that_are_left_are_compared() -> None:
    group = scored_group(0, rewards=[1.0, 0.0, -0.5], finish=["length", "stop", "stop"])
    by_verdict = settings(zero_variance_of="verdict", truncated="mask")
    assert sift(group, 0, by_verdict).drop == "zero_variance"


def test_dapo_alone_goes_by_verdicts_unless_it_is_told_otherwise() -> None:
    """Its dynamic sampling keeps a group with 0 < correct answers < all (arXiv:2503.14476, equation 8)."""
    assert settings(objective={"type": "dapo"}).zero_variance_of == "verdict"
    assert settings(objective={"type": "dapo"}, zero_variance_of="reward").zero_variance_of == "reward"
    assert settings(objective={"type": "grpo"}).zero_variance_of == settings().zero_variance_of == "reward"


@pytest.mark.parametrize("rule", ["train", "mask"])
def test_lengths_and_cuts_are_those_of_everything_that_was_sampled(rule: str) -> None:
    groups = [
        scored_group(0, rewards=[1.0, 0.0], responses=[[1], [2, 3, 4]], finish=["stop", "length"]),
        scored_group(1, rewards=[0.0, 0.0], responses=[[1, 2], [3, 4]], finish=["length", "stop"]),
    ]
    found = assemble(groups, 0, settings(truncated=rule)).tally
    assert (found.mean_response_tokens, found.cut_fraction) == (2.0, 0.5)


def test_each_rule_for_stale_tokens() -> None:
    group = scored_group(0, rewards=[1.0, 0.0], responses=TWO, versions=[[(1, 1), (3, 1)], [(3, 3)]])
    train, drop, mask = (assemble([group], 4, settings(stale_tokens=rule)) for rule in ("train", "drop", "mask"))
    assert train.mask.tolist() == [True] * 5
    assert (len(drop), drop.tally.dropped_groups) == (0, {"stale": 1})
    assert mask.mask.tolist() == [False, True, True, True, True]
    assert mask.tally.masked_tokens == 1


@pytest.mark.parametrize("rule", STALE_TOKENS)
def test_no_token_is_stale_at_a_lag_up_to_the_bound(rule: str) -> None:
    group = scored_group(0, rewards=[1.0, 0.0], responses=TWO, versions=[[(2, 2)], [(5, 3)]])
    assert assemble([group], 4, settings(stale_tokens=rule)).mask.all()


@pytest.mark.parametrize("ahead", [3, 50])
def test_tokens_of_versions_that_a_restart_took_back_are_stale_like_old_ones(ahead: int) -> None:
    group = scored_group(0, rewards=[1.0, 0.0], responses=TWO, versions=[[(4, 1), (4 + ahead, 1)], [(6, 3)]])
    train, drop, mask = (assemble([group], 4, settings(stale_tokens=rule)) for rule in ("train", "drop", "mask"))
    assert train.mask.tolist() == [True] * 5
    assert (len(drop), drop.tally.dropped_groups) == (0, {"stale": 1})
    assert mask.mask.tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_sequence_with_a_log_prob_that_is_not_finite_is_out_before_the_mean(bad: float) -> None:
    group = scored_group(0, rewards=[1.0, 0.0, 0.5], responses=[[1], [2], [3]], behavior_logp=[[bad], [-1.0], [-1.0]])
    batch = assemble([group], 0, settings())
    assert batch.reward.tolist() == [0.0, 0.5]
    assert batch.tally.dropped_sequences == {"non_finite": 1}


def test_the_log_prob_of_a_token_masked_as_stale_may_be_anything() -> None:
    group = scored_group(
        0,
        rewards=[1.0, 0.0],
        responses=TWO,
        versions=[[(0, 1), (4, 1)], [(4, 3)]],
        behavior_logp=[[math.nan, -1.0], [-1.0] * 3],
    )
    assert len(assemble([group], 4, settings(stale_tokens="mask"))) == 2


def test_responses_cut_by_length_train_or_stay_out() -> None:
    group = scored_group(0, rewards=[1.0, 0.0, 0.0], finish=["stop", "stop", "length"])
    assert len(assemble([group], 0, settings(truncated="train"))) == 3
    out = assemble([group], 0, settings(truncated="mask"))
    assert (len(out), out.tally.dropped_sequences) == (2, {"truncated": 1})


def test_what_is_left_of_a_group_must_be_two_with_different_rewards() -> None:
    single = scored_group(0, rewards=[1.0, 0.0], finish=["stop", "length"])
    equal = scored_group(1, rewards=[1.0, 1.0, 0.0], finish=["stop", "stop", "length"])
    batch = assemble([single, equal], 0, settings(truncated="mask"))
    assert batch.tally.dropped_groups == {"single": 1, "zero_variance": 1}
    assert len(batch) == 0


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=5), min_size=1, max_size=6),
    st.sampled_from(STALE_TOKENS),
    st.integers(0, 5),
)
def test_every_group_and_sequence_is_in_the_batch_or_counted(rewards: list[list[float]], rule: str, now: int) -> None:
    groups = [scored_group(i, rewards=r) for i, r in enumerate(rewards)]
    batch = assemble(groups, now, settings(stale_tokens=rule))
    trained = len(torch.unique(batch.group))
    assert trained + sum(batch.tally.dropped_groups.values()) == len(groups)
    assert torch.equal(torch.unique(batch.group), torch.arange(trained))
    assert len(batch.response_ids) == len(batch.mask) == int(batch.cu_seqlens[-1])


def test_a_score_without_reward_is_refused_by_name() -> None:
    group = scored_group(5, rewards=[1.0, 0.0])
    scores = (Score(verdict="error", reward=None, detail="", elapsed_s=0.0), group.scores[1])
    broken = ScoredGroup(group=group.group, scores=scores, verifier_id="v")
    with pytest.raises(InputError, match="train-5"):
        sift(broken, 0, settings(stale_tokens="train"))


def test_what_rank_0_sends_arrives_as_it_was() -> None:
    """Masks, reasons and a pass rate that is not a number included."""
    equal = scored_group(0, rewards=[1.0, 1.0], responses=[[1], [2]], versions=[[(4, 1)], [(4, 1)]])
    mixed = scored_group(
        1,
        rewards=[1.0, 0.0, 0.0],
        responses=[[1], [2], [3]],
        versions=[[(0, 1)], [(4, 1)], [(4, 1)]],
        finish=["stop", "stop", "length"],
    )
    for groups in ([], [equal, mixed]):
        sifted = [sift(group, 4, settings(stale_tokens="mask", truncated="mask")) for group in groups]
        arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(sifted), type=list[SiftedGroup])
        assert arrived == sifted
        counted = tally(groups, sifted)
        assert repr(msgspec.msgpack.decode(msgspec.msgpack.encode(counted), type=Tally)) == repr(counted)
    assert counted.dropped_sequences == {"stale": 1, "truncated": 1}
    assert counted.dropped_groups == {"zero_variance": 1, "single": 1}


def test_shaped_rewards_reach_the_loss_and_both_are_tallied() -> None:
    shaping = {"efficiency": {"strength": 0.5}, "overlong": {"buffer_tokens": 4}}
    settings = LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1, "shaping": shaping})
    group = scored_group(0, rewards=[1.0, 1.0, 0.0], responses=[[1], [1, 2, 3], [1] * 8])  # max_tokens is 8
    sifted = sift(group, 0, settings)
    rewards = [sequence.reward for sequence in sifted.kept]
    assert rewards[0] > rewards[1] > rewards[2] == -1.0
    counted = tally([group], [sifted])
    assert counted.mean_reward == pytest.approx(2 / 3)
    assert counted.mean_shaped_reward == pytest.approx(sum(rewards) / 3)
    alone = sift(group, 0, settings.model_copy(update={"shaping": None}))
    assert [sequence.reward for sequence in alone.kept] == [1.0, 1.0, 0.0]
