"""Which sequences are stepped on, in which ways, and the random model."""

import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from learner.batch.sift import Tally
from learner.batch.step_batch import StepBatch

GROUP_SIZE = 8


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    hidden: int = 256
    layers: int = 4
    vocabulary: int = 4096
    longest: int = 1024
    """Response tokens."""
    groups: int = 4

    @property
    def row(self) -> int:
        """Tokens of a row that holds several sequences."""
        return 4 * self.longest


@dataclass(frozen=True)
class Way:
    """One way to take a step."""

    name: str
    row_tokens: int = 0
    """0: TRL's."""
    dense: bool = False
    shares: bool = False


@dataclass(frozen=True)
class Case:
    name: str
    batch: StepBatch
    ways: tuple[Way, ...]
    """The first is what the others are compared with."""


def cases(size: Size) -> list[Case]:
    by_span = Way("by span", size.row)
    dense, shared = Way("dense mask", size.row, dense=True), Way("by span, prompts shared", size.row, shares=True)
    long, few = size.longest, max(1, size.groups // 2)
    return [
        Case(
            "lengths 16 to 1,024",
            made_up_batch(size, size.groups, 16, (16, long - 16)),
            (dense, by_span, shared, Way("TRL")),
        ),
        Case("all of 1,024", made_up_batch(size, few, 16, (long - 16, long - 16)), (dense, by_span)),
        Case(
            "rows of 8,192 and of 1,024",
            made_up_batch(size, size.groups, 16, (16, long - 16)),
            (Way("rows of 1,024", long), Way("rows of 8,192", 2 * size.row)),
        ),
        Case(
            "prompts of 512, responses of 64 to 256",
            made_up_batch(size, few, long // 2, (long // 16, long // 4)),
            (dense, by_span, shared),
        ),
    ]


def made_up_batch(size: Size, groups: int, prompt: int, responses: tuple[int, int]) -> StepBatch:
    """Random tokens, responses of log-uniform lengths; the first of each group is right."""
    draw, ids = random.Random(0), torch.Generator().manual_seed(0)
    shortest, longest = (math.log(length) for length in responses)
    lengths = [round(math.exp(draw.uniform(shortest, longest))) for _ in range(groups * GROUP_SIZE)]
    total, count = sum(lengths), len(lengths)
    prompts = [torch.randint(size.vocabulary, (prompt,), generator=ids) for _ in range(groups)]
    return StepBatch(
        prompt_ids=tuple(prompts[i // GROUP_SIZE] for i in range(count)),
        response_ids=torch.randint(size.vocabulary, (total,), generator=ids),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0),
        behavior_logp=torch.full((total,), -math.log(size.vocabulary)),
        mask=torch.ones(total, dtype=torch.bool),
        reward=torch.tensor([float(i % GROUP_SIZE == 0) for i in range(count)], dtype=torch.float64),
        group=torch.arange(count) // GROUP_SIZE,
        temperature=torch.ones(count),
        lag_steps=torch.zeros(total, dtype=torch.int64),
        turn=torch.zeros(total, dtype=torch.int64),
        turn_reward=torch.zeros(total, dtype=torch.float64),
        tally=Tally(),
        read=((),) * count,
    )


def write_model(folder: Path, size: Size) -> Path:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2 * size.longest,
        bos_token_id=None,
        eos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder
