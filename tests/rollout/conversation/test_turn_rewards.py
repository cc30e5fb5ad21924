"""Rewards of single turns on their whole way: from what an environment gives, by the record, to the advantage of each token."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from learner.batch.sift import sift
from learner.batch.step_batch import StepBatch, assemble
from learner.step.inputs import StepInputs
from rollout.conversation.conversations import ConversationFailed
from rollout.environments import Message, Start, Subject, Turn
from services.config.learner import LearnerConfig
from services.wire.codec import decode, encode
from services.wire.score import ScoredGroup
from services.wire.trajectory import Group
from services.wire.verdict import Score
from tests.rollout.conversation.talking import run_config
from tests.rollout.conversation.test_conversations import by_turn, held

Rewards = list[Any]
"""What is given for each message of one conversation, None where there is nothing."""
SAYS = ("hello", "hello world", "it is seven")


class Giving:
    """Gives these rewards, conversation by conversation, and is done after the last."""

    left: Iterator[Rewards]

    async def reset(self, subject: Subject) -> Start:
        self._rewards = list(next(self.left))
        return Start(subject.messages)

    async def step(self, message: Message) -> Turn:
        reward = self._rewards.pop(0)
        return Turn([{"role": "user", "content": "what"}], done=not self._rewards, reward=reward)

    async def close(self) -> None:
        pass


def scored(rewards: list[Rewards], *, grader: str = "environment", outcomes: list[float] | None = None) -> ScoredGroup:
    """A group of conversations with these rewards, once over the wire. outcomes: of the grader; default: the sums."""

    class Given(Giving):
        left = iter(rewards)

    group = held(Given, by_turn(*SAYS), run_config(attempts=1), group_size=len(rewards), grader=grader)
    given = [one.reward or 0.0 for one in group.trajectories] if outcomes is None else outcomes
    scores = tuple(
        Score(verdict="correct" if reward > 0 else "incorrect", reward=reward, detail="", elapsed_s=0.0)
        for reward in given
    )
    whole = ScoredGroup(
        group=Group(prompt=group.prompt, trajectories=group.trajectories, replica_id="rollout-0"),
        scores=scores,
        verifier_id="verifier-0",
    )
    whole.check()
    return decode(encode(whole), ScoredGroup)


def settings(**turns: float) -> LearnerConfig:
    return LearnerConfig.model_validate(
        {"steps": 1, "groups_per_step": 1, "row_tokens": 2048, "advantage": {"baseline": "mean", "turns": turns}}
    )


def of_turns(group: ScoredGroup, learner: LearnerConfig) -> list[list[float]]:
    """The first term of the advantage of each turn, conversation by conversation: the same at all tokens of the turn."""
    batch: StepBatch = assemble([group], 0, learner)
    found = StepInputs.of(batch, torch.device("cpu"), learner.advantage).turn_advantage
    assert found is not None
    at, told = 0, list[list[float]]()
    for one in group.group.trajectories:
        told.append([])
        for turn in one.turns:
            (value,) = set(found[at : at + turn.tokens].tolist())
            told[-1].append(value)
            at += turn.tokens
    assert at == len(found) == len(batch.turn_reward)
    return told


def test_a_turn_without_a_reward_earned_nothing_itself_and_what_came_of_it() -> None:
    group = scored([[None, 0.5, None], [None, None, 1.0], [0.25]])
    kept = [[turn.reward for turn in one.turns] for one in group.group.trajectories]
    assert kept == [[None, 0.5, None], [None, None, 1.0], [0.25]]
    # Returns with a discount of 1/2: [1/4, 1/2, 0], [1/4, 1/2, 1] and [1/4].
    assert of_turns(group, settings(discount=0.5)) == [[0.0, 0.0, -0.5], [0.0, 0.0, 0.5], [0.0]]
    # Without: [1/2, 1/2, 0], [1, 1, 1] and [1/4], whose mean is 7/12.
    first, second, third = of_turns(group, settings(discount=1.0))
    assert first == pytest.approx([-1 / 12, -0.25, -0.5])
    assert second == pytest.approx([5 / 12, 0.25, 0.5])
    assert third == pytest.approx([-1 / 3])


def test_where_no_turn_has_a_reward_all_that_counts_is_the_outcome() -> None:
    silent: list[Rewards] = [[None, None], [None, None, None]]
    group = scored(silent, grader="exact", outcomes=[1.0, 0.0])
    assert of_turns(group, settings()) == [[0.0, 0.0], [0.0, 0.0, 0.0]]
    assert sift(group, 0, settings()).drop is None
    assert sift(scored(silent, grader="exact", outcomes=[1.0, 1.0]), 0, settings()).drop == "zero_variance"
    with pytest.raises(ConversationFailed, match="gave no reward"):
        scored(silent)


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), -float("inf"), "0.5", True, [0.5]])
@pytest.mark.parametrize("before", [[], [0.5]])
def test_a_turn_whose_reward_is_not_a_number_is_a_fault_wherever_it_stands(before: Rewards, reward: Any) -> None:
    with pytest.raises(ConversationFailed, match=r"step gave the reward .*, which is not a finite number"):
        scored([[*before, reward, 1.0], [*before, 0.0, 0.0]])


def test_a_message_that_was_cut_earned_nothing_and_what_came_before_it_keeps_its_reward() -> None:
    class Given(Giving):
        left = iter([[0.5, 0.5], [0.5, 0.5]])

    group = held(Given, by_turn("hello", "hello " * 40), run_config(attempts=1, max_turn_tokens=20), group_size=2)
    for one in group.trajectories:
        assert [turn.reward for turn in one.turns] == [0.5, None]
        assert (one.finish_reason, one.reward) == ("length", 0.5)
