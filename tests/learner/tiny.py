"""A tiny Qwen2 in the Hugging Face layout, and groups sampled from nothing in particular."""

from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from services.wire.codec import Array
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from services.wire.trajectory import Group, Trajectory, VersionSpan
from services.wire.verdict import Score

VOCABULARY = 17


def write_tiny_model(folder: Path, *, tied: bool = False, hidden: int = 32, layers: int = 2, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=hidden * 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        attention_dropout=0.1,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def scored_group(
    index: int,
    *,
    rewards: list[float],
    versions: list[list[tuple[int, int]]] | None = None,
    prompt: list[int] | None = None,
    responses: list[list[int]] | None = None,
    behavior_logp: list[list[float]] | None = None,
    finish: list[str] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> ScoredGroup:
    """versions: for each trajectory its (policy_version, token count) spans; what is not given is drawn."""
    draw = np.random.default_rng([seed, index])
    prompt = prompt or draw.integers(0, VOCABULARY, draw.integers(2, 7)).tolist()
    responses = responses or [draw.integers(0, VOCABULARY, draw.integers(1, 6)).tolist() for _ in rewards]
    trajectories = []
    for i, response in enumerate(responses):
        logp = behavior_logp[i] if behavior_logp else (-draw.uniform(2.0, 3.5, len(response))).tolist()
        spans, at = [], 0
        for version, count in versions[i] if versions else [(0, len(response))]:
            spans.append(VersionSpan(version, at, at + count))
            at += count
        trajectories.append(
            Trajectory(
                token_ids=Array.of(response, "<i4"),
                behavior_logp=Array.of(logp, "<f4"),
                spans=tuple(spans),
                finish_reason=finish[i] if finish else "stop",  # type: ignore[arg-type]
                text="",
            )
        )
    return ScoredGroup(
        group=Group(
            prompt=Prompt(
                group_id=f"train-{index}",
                sequence_number=index,
                purpose="train",
                row=index,
                token_ids=Array.of(prompt, "<i4"),
                group_size=len(rewards),
                temperature=temperature,
                max_tokens=8,
                stop_token_ids=(),
                seed=0,
                grader="exact",
                reference="",
                options={},
            ),
            trajectories=tuple(trajectories),
            replica_id="r",
        ),
        scores=tuple(
            Score(verdict="correct" if r > 0 else "incorrect", reward=r, detail="", elapsed_s=0.0) for r in rewards
        ),
        verifier_id="v",
    )
