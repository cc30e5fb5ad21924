"""Conversations over an engine that is told what to say, with a real tokenizer and template."""

from collections.abc import Callable
from typing import Any

from rollout.conversation.conversations import Conversations
from rollout.conversation.dialogue import Script
from rollout.environments import Environment
from services.config.run import RunConfig
from services.wire.codec import Array
from services.wire.prompt import Prompt
from tests.fakes.tokenizers import tokenizer_of


def run_config(**environment: Any) -> RunConfig:
    sampling = {"max_tokens": 200, "group_size": 4}
    return RunConfig.model_validate(
        {
            "name": "talk",
            "device": "cpu",
            "model": {"path": "nowhere", "max_length": 1024, "dtype": "float32"},
            "prompts": {"source": {"type": "jsonl", "path": "rows.jsonl"}},
            "environment": {"name": "guess", "turn_s": 5.0, **environment},
            "rollout": {"sampling": sampling, "max_concurrent_sequences": 8},
            "weights": {"type": "gloo"},
            "learner": {"steps": 1, "groups_per_step": 1, "row_tokens": 2048},
        }
    )


def script_of(config: RunConfig, name: str = "chatml") -> Script:
    tokenizer = tokenizer_of(name)
    return Script(tokenizer, [tokenizer.eos_token_id], config.prompts)


def conversations(
    make: Callable[[], Environment], config: RunConfig | None = None, template: str = "chatml"
) -> Conversations:
    config = config or run_config()
    return Conversations(config, script_of(config, template), make)


def message(text: str, template: str = "chatml") -> list[int]:
    """The tokens of a message and of its end."""
    tokenizer = tokenizer_of(template)
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


def prompt(number: int = 0, **changes: object) -> Prompt:
    facts = {
        "group_id": f"train-{number}",
        "sequence_number": number,
        "purpose": "train",
        "row": number,
        "token_ids": Array.of([1, 2, 3], "<i4"),
        "group_size": 4,
        "temperature": 1.0,
        "max_tokens": 200,
        "stop_token_ids": (),
        "seed": 100 * number,
        "grader": "environment",
        "reference": "7",
        "options": {},
        "problem": "which number",
    }
    return Prompt(**(facts | changes))  # type: ignore[arg-type]
