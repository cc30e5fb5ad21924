"""Groups of conversations: what is recorded, what is asked of the engine, and where a conversation ends."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rollout.conversation.conversations import ConversationFailed, HeldGroup
from rollout.engine import EngineFailed
from rollout.environments import Environment, Message, Start, Subject, Turn
from rollout.environments.guess import Guess
from services.config.run import RunConfig
from services.wire.prompt import Prompt
from services.wire.trajectory import check_turns
from tests.fakes.talking_engine import TalkingEngine
from tests.fakes.tokenizers import tokenizer_of
from tests.rollout.conversation.talking import conversations, message, prompt, run_config


def held(
    make: Callable[[], Environment],
    says: Callable[[Prompt], list[int]] | TalkingEngine,
    config: RunConfig | None = None,
    template: str = "chatml",
    **changes: object,
) -> HeldGroup:
    engine = says if isinstance(says, TalkingEngine) else TalkingEngine(says)

    async def scenario() -> HeldGroup:
        all_of_them = conversations(make, config, template)
        try:
            async with asyncio.timeout(20):
                return await all_of_them.sample(prompt(**changes), engine.sample)  # type: ignore[arg-type]
        finally:
            await all_of_them.stop()

    return asyncio.run(scenario())


def by_turn(*texts: str) -> Callable[[Prompt], list[int]]:
    """Says these texts one after another, in each conversation."""
    end = tokenizer_of("chatml").convert_tokens_to_ids("<|im_start|>")

    def says(asked: Prompt) -> list[int]:
        turns = asked.token_ids.numpy().tolist().count(end) // 2
        return message(texts[min(turns, len(texts)) - 1])

    return says


class Echo:
    """Answers each message with itself, `turns` times, each worth 0.25."""

    turns = 3

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        self.heard: list[str] = []

    async def reset(self, subject: Subject) -> Start:
        return Start(subject.messages)

    async def step(self, message: Message) -> Turn:
        self.heard.append(message["content"])
        done = len(self.heard) == self.turns
        return Turn([{"role": "user", "content": f"you said {message['content']}"}], done, reward=0.25)

    async def close(self) -> None:
        pass


def test_a_conversation_is_recorded_as_the_engine_saw_it() -> None:
    engine = TalkingEngine(by_turn("hello", "hello world", "it is seven"))
    group = held(Echo, engine, group_size=2)
    for index, one in enumerate(group.trajectories):
        check_turns(one)
        one.policy_versions()
        asked = [own for own in engine.asked if own.group_id == f"train-0/{index}"]
        # What the engine read before each turn is the prompt and what the record says came before.
        context, at = group.prompt.token_ids.numpy().tolist(), 0
        for turn, own in zip(one.turns, asked, strict=True):
            context = context + turn.given.numpy().tolist()
            assert own.token_ids.numpy().tolist() == context
            context = context + one.token_ids.numpy().tolist()[at : at + turn.tokens]
            at += turn.tokens
        text = tokenizer_of("chatml").decode(context)
        assert text.endswith(
            "<|im_start|>user\nyou said hello world<|im_end|>\n<|im_start|>assistant\nit is seven<|im_end|>"
        )
        assert [turn.reward for turn in one.turns] == [0.25, 0.25, 0.25]
        assert (one.reward, one.finish_reason, len(one.turns)) == (0.75, "stop", 3)
        assert len({own.seed for own in asked}) == 3
        assert asked[0].seed == index


def test_what_is_left_of_the_tokens_bounds_each_message() -> None:
    config = run_config(max_turn_tokens=40)
    engine = TalkingEngine(by_turn("hello " * 3, "it is " * 60))
    group = held(Echo, engine, config, group_size=2)
    for one in group.trajectories:
        assert [turn.tokens for turn in one.turns][1:] == [40]
        assert one.finish_reason == "length"
    engine = TalkingEngine(by_turn("it is seven hello what " * 6, "it is " * 60))
    group = held(Echo, engine, run_config(), group_size=2, max_tokens=60)
    assert all(len(one) == 60 and one.finish_reason == "length" for one in group.trajectories)


def test_turns_that_are_used_up_cut_the_conversation_and_keep_what_was_given() -> None:
    group = held(Echo, by_turn("hello"), run_config(max_turns=2))
    for one in group.trajectories:
        assert (one.finish_reason, len(one.turns), one.reward) == ("turns", 2, 0.5)


def test_a_swap_between_two_turns_leaves_each_turn_its_version() -> None:
    engine = TalkingEngine(by_turn("hello", "hello world", "it is seven"))

    class Swapping(Echo):
        async def step(self, message: Message) -> Turn:
            engine.policy_version = len(self.heard) + 1
            return await super().step(message)

    (one, _) = held(Swapping, engine, group_size=2).trajectories
    versions = one.policy_versions().tolist()
    ends = [sum(turn.tokens for turn in one.turns[: n + 1]) for n in range(3)]
    assert versions[ends[0] - 1] <= versions[ends[1] - 1] <= versions[ends[2] - 1]
    assert len(set(versions)) > 1


def test_a_rewritten_history_is_one_trajectory_that_begins_again() -> None:
    says = by_turn("<think>hello</think>hello", "<think>what</think>hello world", "it is seven")
    group = held(Echo, says, template="forgets thoughts", group_size=2)
    for one in group.trajectories:
        check_turns(one)
        assert [turn.restarts for turn in one.turns] == [False, True, True]
        again = tokenizer_of("forgets thoughts").decode(one.turns[1].given.numpy().tolist())
        assert "<|im_start|>assistant\nhello<|im_end|>" in again
        assert again.startswith("<|im_start|>user\nwhich number")


def test_conversations_that_begin_differently_each_keep_their_own_beginning() -> None:
    numbers = iter(range(100))

    class Different(Echo):
        async def reset(self, subject: Subject) -> Start:
            return Start([{"role": "user", "content": f"hello {next(numbers)}"}])

    group = held(Different, by_turn("hello"), run_config(max_turns=1))
    begun = [
        one.turns[0].given.numpy().tolist() or group.prompt.token_ids.numpy().tolist() for one in group.trajectories
    ]
    texts = {tokenizer_of("chatml").decode(ids) for ids in begun}
    assert len(texts) == 4
    assert [one.turns[0].restarts for one in group.trajectories] == [False, True, True, True]


def test_conversations_that_wait_hold_no_room_in_the_engine() -> None:
    class Slow(Echo):
        turns = 2
        waiting = most = 0

        async def step(self, message: Message) -> Turn:
            Slow.waiting += 1
            Slow.most = max(Slow.most, Slow.waiting)
            await asyncio.sleep(0.05)
            Slow.waiting -= 1
            return await super().step(message)

    config = run_config()
    narrow = config.model_copy(update={"rollout": config.rollout.model_copy(update={"max_concurrent_sequences": 4})})
    engine = TalkingEngine(by_turn("hello"), seconds=0.002)
    group = held(Slow, engine, narrow, group_size=16)
    assert len(group.trajectories) == 16
    assert engine.most_running == 4
    assert Slow.most > 8


def test_the_guessing_game_is_played_to_its_reward() -> None:
    group = held(Guess, by_turn("5", "9", "7"))
    for one in group.trajectories:
        assert [turn.reward for turn in one.turns] == [None, None, 1.0]
        words = [tokenizer_of("chatml").decode(turn.given.numpy().tolist()) for turn in one.turns]
        assert "higher" in words[1]
        assert "lower" in words[2]
    group = held(Guess, by_turn("5", "what", "9", "6"))
    assert {(one.reward, len(one.turns)) for one in group.trajectories} == {(0.0, 4)}


def test_an_engine_that_dies_ends_the_conversations_as_it_ends_a_group() -> None:
    engine = TalkingEngine(by_turn("hello"))
    engine.dead = "out of memory"
    with pytest.raises(EngineFailed, match="out of memory"):
        held(Echo, engine)


def test_a_conversation_that_fails_in_every_attempt_says_how() -> None:
    class Broken(Echo):
        async def step(self, message: Message) -> Turn:
            raise OSError("no route to the tool")

    with pytest.raises(ConversationFailed, match=r"failed in 2 attempts.*crashed: step raised OSError: no route"):
        held(Broken, by_turn("hello"), run_config(attempts=2))


def test_done_without_a_reward_is_a_fault_where_the_reward_is_the_environments() -> None:
    class Silent(Echo):
        async def step(self, message: Message) -> Turn:
            return Turn(done=True)

    with pytest.raises(ConversationFailed, match="gave no reward"):
        held(Silent, by_turn("hello"), run_config(attempts=1))
    group = held(Silent, by_turn("hello"), run_config(attempts=1), grader="exact")
    assert {one.text.split()[0] for one in group.trajectories} == {"message"}


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"done": True}, "not a Turn"),
        (Turn(), "not done and has no messages"),
        (Turn([{"role": "assistant", "content": "I"}]), "a message of 'assistant'"),
        (Turn([{"role": "user", "content": ["I"]}]), "not a message with a text"),
        (Turn("hello"), "not a list"),  # type: ignore[arg-type]
        (Turn(done=True, reward=float("nan")), "the reward nan"),
        (Turn(done=True, reward=True), "the reward True"),
        (Turn([{"role": "user", "content": "it is " * 3000}]), "flooded: it said"),
        (Turn([{"role": "user", "content": "it is " * 300_000}]), "flooded: step said 1800000 characters"),
    ],
)
def test_an_answer_that_is_none_is_a_fault_by_name(turn: Any, said: str) -> None:
    class Lying(Echo):
        async def step(self, message: Message) -> Turn:
            answer: Turn = turn
            return answer

    with pytest.raises(ConversationFailed, match=said):
        held(Lying, by_turn("hello"), run_config(attempts=1))


@pytest.mark.parametrize("raises", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), StopAsyncIteration()])
def test_nothing_that_an_environment_raises_ends_the_thread_that_all_share(raises: BaseException) -> None:
    class Ending(Echo):
        broken = True

        async def step(self, message: Message) -> Turn:
            if Ending.broken:
                Ending.broken = False
                raise raises
            return await super().step(message)

    group = held(Ending, by_turn("hello"), run_config(attempts=2))
    assert {one.reward for one in group.trajectories} == {0.75}


def test_one_that_blocks_the_thread_is_left_behind_and_the_others_go_on() -> None:
    import time

    class Blocking(Echo):
        blocked = False

        async def step(self, message: Message) -> Turn:
            if not Blocking.blocked:
                Blocking.blocked = True
                time.sleep(8.0)
            return await super().step(message)

    begun = time.monotonic()
    group = held(Blocking, by_turn("hello"), run_config(attempts=3, turn_s=0.3))
    assert {one.reward for one in group.trajectories} == {0.75}
    assert time.monotonic() - begun < 7.0
