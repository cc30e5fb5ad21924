import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.batch.step_batch import assemble, sift
from services.config.learner import LearnerConfig
from services.errors import InputError
from services.wire.score import ScoredGroup
from services.wire.verdict import Score
from tests.learner.tiny import scored_group


def settings(**changes: object) -> LearnerConfig:
    return LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1, "max_lag": 2, **changes})


TWO = [[1, 2], [3, 4, 5]]


def test_tokens_keep_their_log_probs_and_versions() -> None:
    group = scored_group(
        0,
        rewards=[1.0, 0.0],
        prompt=[7, 8],
        responses=TWO,
        behavior_logp=[[-1.0, -2.0], [-3.0, -4.0, -5.0]],
        versions=[[(3, 1), (4, 1)], [(4, 3)]],
        temperature=0.5,
    )
    batch = assemble([group], 5, settings())
    assert batch.response_ids.tolist() == [1, 2, 3, 4, 5]
    assert batch.cu_seqlens.tolist() == [0, 2, 5]
    assert batch.behavior_logp.tolist() == [-1.0, -2.0, -3.0, -4.0, -5.0]
    assert batch.lag_steps.tolist() == [2, 1, 1, 1, 1]
    assert [p.tolist() for p in batch.prompt_ids] == [[7, 8], [7, 8]]
    assert (batch.reward.tolist(), batch.group.tolist(), batch.temperature.tolist()) == ([1.0, 0.0], [0, 0], [0.5, 0.5])


@given(st.floats(-10, 10), st.integers(2, 9))
def test_equal_rewards_are_dropped_and_counted_but_still_in_the_pass_rate(reward: float, count: int) -> None:
    batch = assemble([scored_group(0, rewards=[reward] * count), scored_group(1, rewards=[1.0, 0.0])], 0, settings())
    assert len(batch) == 2
    assert batch.tally.dropped_groups == {"zero_variance": 1}
    assert (batch.tally.groups, batch.tally.sequences) == (2, count + 2)
    assert batch.tally.pass_rate == pytest.approx((count * (reward > 0) + 1) / (count + 2))


def test_the_stale_tokenss() -> None:
    group = scored_group(0, rewards=[1.0, 0.0], responses=TWO, versions=[[(1, 1), (3, 1)], [(3, 3)]])
    train, drop, mask = (assemble([group], 4, settings(stale_tokens=rule)) for rule in ("train", "drop", "mask"))
    assert train.mask.tolist() == [True] * 5
    assert (len(drop), drop.tally.dropped_groups) == (0, {"stale": 1})
    assert mask.mask.tolist() == [False, True, True, True, True]
    assert mask.tally.masked_tokens == 1


@pytest.mark.parametrize("rule", ["train", "drop", "mask"])
def test_lag_up_to_the_bound_is_young_under_every_rule(rule: str) -> None:
    group = scored_group(0, rewards=[1.0, 0.0], responses=TWO, versions=[[(2, 2)], [(5, 3)]])
    assert assemble([group], 4, settings(stale_tokens=rule)).mask.all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_sequence_with_a_log_prob_that_is_no_number_is_out_before_the_mean(bad: float) -> None:
    group = scored_group(0, rewards=[1.0, 0.0, 0.5], responses=[[1], [2], [3]], behavior_logp=[[bad], [-1.0], [-1.0]])
    batch = assemble([group], 0, settings())
    assert batch.reward.tolist() == [0.0, 0.5]
    assert batch.tally.dropped_sequences == {"non_finite": 1}


def test_a_log_prob_that_is_masked_by_age_may_be_anything() -> None:
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
    st.sampled_from(["train", "drop", "mask"]),
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
        sift(broken, 0, stale_tokens="train", max_lag=0, truncated="train")
