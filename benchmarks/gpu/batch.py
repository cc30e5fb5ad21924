"""Batches of random tokens and the learner's engine on a random model."""

import random
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.card import Card
from benchmarks.gpu.models import model_path, vocabulary
from learner.batch.micro_batch import MicroBatch
from learner.batch.sift import Tally
from learner.batch.step_batch import StepBatch
from learner.engine.deepspeed_engine import DeepSpeedEngine
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig


def row_tokens_of(card: Card, asked: str) -> int:
    return 128 if card.cpu else int(asked)


def random_batch(card: Card, tokens: int, longest: int, seed: int = 0) -> StepBatch:
    """Groups of 8 with prompts of 100 tokens and responses of up to `longest`, about `tokens` in all.

    Without a GPU: 512 tokens, prompts of 10 and responses of up to 40. behavior_logp is zero until it is scored.
    """
    tokens, longest, prompt = (512, 40, 10) if card.cpu else (tokens, longest, 100)
    draw, size, shortest = random.Random(seed), 8, longest // 6
    groups = max(2, round(tokens / (size * (prompt + (shortest + longest) / 2))))
    lengths = [draw.randint(shortest, longest) for _ in range(groups * size)]
    torch.manual_seed(seed)
    prompts = [torch.randint(vocabulary(card), (prompt,)) for _ in range(groups)]
    total, count = sum(lengths), len(lengths)
    rewards = [float(draw.random() < 0.5 or i % size == 0) * (i % size != 1) for i in range(count)]
    return StepBatch(
        prompt_ids=tuple(prompts[i // size] for i in range(count)),
        response_ids=torch.randint(vocabulary(card), (total,)),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0),
        behavior_logp=torch.zeros(total),
        mask=torch.ones(total, dtype=torch.bool),
        reward=torch.tensor(rewards, dtype=torch.float64),
        group=torch.arange(count) // size,
        temperature=torch.ones(count),
        lag_steps=torch.zeros(total, dtype=torch.int64),
        turn=torch.zeros(total, dtype=torch.int64),
        turn_reward=torch.zeros(total, dtype=torch.float64),
        tally=Tally(),
        read=((),) * count,
    )


def engine_of(card: Card, name: str, row_tokens: int, **settings: Any) -> tuple[DeepSpeedEngine, LearnerConfig]:
    """The learner's engine, one rank, bfloat16, on the random model of this name."""
    config = LearnerConfig(steps=1, groups_per_step=2, row_tokens=row_tokens, **settings)
    model = ModelConfig(path=model_path(card, name), max_length=row_tokens, dtype="bfloat16")
    return DeepSpeedEngine(model, config, "cpu" if card.cpu else "cuda"), config


def log_probs(engine: DeepSpeedEngine, batch: StepBatch, packed: list[MicroBatch]) -> Tensor:
    """The current policy's log-probs of all response tokens, on the CPU: float32 [T]."""
    logp = torch.zeros(len(batch.response_ids))
    for micro_batch, statistics in zip(packed, engine.token_statistics(packed, "current"), strict=True):
        logp[micro_batch.token_index] = statistics.logp.cpu()
    return logp
