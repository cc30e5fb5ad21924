"""Attention by spans against the dense mask and against one sequence a row: seconds, memory, and what each says."""

import torch
from torch import Tensor

from benchmarks.attention.sides import under_masks
from benchmarks.gpu.batch import random_batch, row_tokens_of
from benchmarks.gpu.card import Card, case, row
from benchmarks.gpu.models import model_path
from learner.batch.micro_batch import MicroBatch
from learner.batch.packing import pack
from learner.engine.policy_model import PolicyModel, inputs
from services.config.model import ModelConfig

LONG = 4096
"""Tokens of a row above which activations are computed again in the backward."""


def attention(card: Card, argument: str) -> None:
    """Forward and backward of the same tokens in each way, bfloat16, one row a micro-batch. argument: model, tokens a row."""
    name, asked = argument.split(",")
    row_tokens, is_long = row_tokens_of(card, asked), int(asked) > LONG
    settings = ModelConfig(path=model_path(card, name), max_length=row_tokens, dtype="bfloat16")
    model = PolicyModel(settings, head_chunk_tokens=1024, gradient_checkpointing=is_long).to(card.device).train()
    parameters, peak = sum(p.numel() for p in model.parameters()), card.matmul_flops()
    batch = random_batch(card, row_tokens, 1200 if is_long else 600)
    useful = sum(map(len, batch.prompt_ids)) + len(batch.response_ids)
    widest = max(map(len, batch.prompt_ids)) + int(batch.cu_seqlens.diff().max())

    def packed(*, alone: bool = False, shared: bool = False) -> list[MicroBatch]:
        """alone: one sequence a row, about as many tokens a micro-batch as in the others."""
        if alone:
            rows = max(1, row_tokens // widest)
            return pack(batch, row_tokens=widest, rows_per_micro_batch=rows, share_rows=False)
        return pack(batch, row_tokens=row_tokens, rows_per_micro_batch=1, share_prompts=shared)

    def run(micro_batches: list[MicroBatch]) -> Tensor:
        found = torch.zeros(len(batch.response_ids), device=card.device)
        for micro_batch in micro_batches:
            logp = model(*inputs(micro_batch, card.device))[0]
            (logp.sum() / len(found)).backward()
            found[micro_batch.token_index.to(card.device)] = logp.detach()
        gradients.append(
            float(torch.stack([p.grad.float().norm() for p in model.parameters() if p.grad is not None]).norm())
        )
        model.zero_grad()
        return found.cpu()

    ways = {
        "dense mask": (True, packed()),
        "one sequence a row": (True, packed(alone=True)),
        "by span": (False, packed()),
        "by span, prompts shared": (False, packed(shared=True)),
    }
    gradients: list[float] = []
    said: dict[str, tuple[Tensor, float]] = {}
    row("model", by_span=model.attends_by_span, tokens=useful, sequences=len(batch), longest=widest)
    for label, (masks, micro_batches) in ways.items():
        with case(label), under_masks(model, on=masks):
            run(micro_batches)
            card.forget_peak()
            logp, seconds = card.timed(lambda rows=micro_batches: run(rows), 1 if card.cpu else 2)  # type: ignore[misc]
            said[label] = logp, gradients[-1]
            first, norm = said.get("one sequence a row", said[label])
            gap = (logp - first).abs()
            row(
                label,
                micro_batches=len(micro_batches),
                in_rows=sum(m.token_ids.numel() for m in micro_batches),
                seconds=seconds,
                mfu=6 * parameters * useful / seconds / peak,
                peak_gb=card.peak_gb(),
                gap_mean=float(gap.mean()),
                gap_max=float(gap.max()),
                grad_norm_over=gradients[-1] / norm,
            )
    with case("again"):
        rows = ways["by span, prompts shared"][1]
        row("again", equal=bool(torch.equal(run(rows), run(rows))), grad_norm_over=gradients[-1] / gradients[-2])
