"""Why is the ESS of a first step not 1: do log-probs depend on how the sequences are packed?"""

import torch
from torch import Tensor

from benchmarks.gpu.batch import engine_of, log_probs, random_batch, row_tokens_of
from benchmarks.gpu.card import Card, case, row
from learner.batch.packing import pack
from learner.batch.step_batch import StepBatch
from learner.objective.ess import ess_ratio


def scoring(card: Card, argument: str) -> None:
    """The same batch scored twice in one packing, then in others: gaps in nats a token, and the ESS ratio they make.

    argument: model, tokens a row. A gap of standard deviation s a token makes a sequence of n tokens a weight of
    log-variance n s^2, and an ESS of about exp(-n s^2), without a defect.
    """
    name, asked = argument.split(",")
    row_tokens = row_tokens_of(card, asked)
    engine, _ = engine_of(card, name, row_tokens, zero_stage=1)
    batch = random_batch(card, 16384, 400)
    ways = {
        "again": (row_tokens, 1),
        "rows of a half": (row_tokens // 2, 1),
        "two rows a micro-batch": (row_tokens, 2),
        "one sequence a row": (max(map(len, batch.prompt_ids)) + int(batch.cu_seqlens.diff().max()), 1),
    }
    first = log_probs(engine, batch, pack(batch, row_tokens=row_tokens, rows_per_micro_batch=1))
    for label, (tokens, rows) in ways.items():
        with case(label):
            other = log_probs(engine, batch, pack(batch, row_tokens=tokens, rows_per_micro_batch=rows))
            compare(label, batch, first, other)


def compare(label: str, batch: StepBatch, first: Tensor, other: Tensor) -> None:
    gap = other - first
    sums = torch.stack([part.double().sum() for part in gap.split(batch.cu_seqlens.diff().tolist())])
    row(
        label,
        equal=bool(torch.equal(first, other)),
        gap_mean_abs=float(gap.abs().mean()),
        gap_mean=float(gap.mean()),
        gap_sd=float(gap.std()),
        gap_max=float(gap.abs().max()),
        ess=ess_ratio(sums),
        ess_of_chance=float(torch.exp(-(batch.cu_seqlens.diff().double().mean() * gap.double().var()))),
    )
