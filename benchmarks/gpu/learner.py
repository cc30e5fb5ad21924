"""A learner step on random models of several sizes, and what other trainers do with the same sequences.

Model FLOP utilization is counted as usual: 6 operations a parameter and token and, for attention, 12 x layers x width of the
heads for each pair of tokens that see each other; what checkpointing computes again does not count. Divided by the peak that
the maker states for the card (dense bfloat16), and by that of the matrix products measured here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.batch import engine_of, log_probs, random_batch, row_tokens_of
from benchmarks.gpu.card import Card, case, row
from benchmarks.gpu.models import model_path
from learner.batch.packing import pack
from learner.batch.step_batch import StepBatch
from learner.step.learner_step import learner_step

STATED_FLOPS = 989.4e12
"""H100 SXM and H200, dense bfloat16, by their data sheets."""
SEQUENCES_AT_ONCE = (4, 8, 16)


def learner(card: Card, argument: str) -> None:
    """argument: model, tokens a row, tokens a step, the longest response, and perhaps "kept": activations are not computed
    again."""
    name, asked, tokens, longest, *kept = argument.split(",")
    row_tokens, matmul_flops = row_tokens_of(card, asked), card.matmul_flops()
    batch = random_batch(card, int(tokens), int(longest))
    engine, settings = engine_of(card, name, row_tokens, zero_stage=1, gradient_checkpointing=not kept)
    packed = pack(batch, row_tokens=row_tokens, rows_per_micro_batch=1)
    batch = replace(batch, behavior_logp=log_probs(engine, batch, packed))

    def step() -> None:
        report = learner_step(engine, batch, settings, learning_rate=1e-6)
        if report.skipped:
            raise RuntimeError(f"the step was skipped: {report.skipped}")

    step()
    card.forget_peak()
    _, seconds = card.timed(step, 1 if card.cpu else 2)
    useful, flops = work_of(batch, engine.model.causal_lm)
    row(
        "step",
        micro_batches=len(packed),
        tokens=useful,
        seconds=seconds,
        tokens_s=useful / seconds,
        mfu_of_stated=flops / seconds / STATED_FLOPS,
        mfu_of_measured=flops / seconds / matmul_flops,
        peak_gb=card.peak_gb(),
    )


def others(card: Card, argument: str) -> None:
    """Sequences padded to the longest of their micro-batch, as TRL does: its loss over whole logits, and Liger's instead.

    argument: model, tokens a step, the longest response. Forward, backward and AdamW in bfloat16 (no float32 copy: less work
    than the learner's step does), gradient checkpointing, the token-level loss of GRPO without a reference.
    """
    name, tokens, longest = argument.split(",")
    matmul_flops = card.matmul_flops()
    batch = random_batch(card, int(tokens), int(longest))
    ways: list[tuple[str, Callable[[Any], Callable[..., Tensor]]]] = [("padded, whole logits", whole_logits)]
    if not card.cpu:
        ways.append(("padded, Liger", liger))
    for label, way in ways:
        for at_once in SEQUENCES_AT_ONCE[: 1 if card.cpu else None]:
            with case(f"{label}, {at_once} at once"):
                row(f"{label}, {at_once} at once", **padded_step(card, name, batch, way, at_once, matmul_flops))


def padded_step(
    card: Card,
    name: str,
    batch: StepBatch,
    way: Callable[[Any], Callable[..., Tensor]],
    at_once: int,
    matmul_flops: float,
) -> dict[str, Any]:
    """The figures of one optimizer step in micro-batches of so many sequences."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    model = loader.from_pretrained(model_path(card, name), dtype=torch.bfloat16).to(card.device).train()
    loss_of = way(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=not card.cpu)
    starts = batch.cu_seqlens.tolist()
    count = len(starts) - 1
    padded = [padded_rows(batch, starts, range(at, min(at + at_once, count)), card) for at in range(0, count, at_once)]

    def step() -> None:
        for ids, mask, response in padded:
            (loss_of(ids, mask, response) * (len(ids) / count)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    card.forget_peak()
    _, seconds = card.timed(step)
    useful, flops = work_of(batch, model)
    return {
        "micro_batches": len(padded),
        "tokens": useful,
        "padded_tokens": sum(ids.numel() for ids, _, _ in padded),
        "seconds": seconds,
        "tokens_s": useful / seconds,
        "mfu_of_stated": flops / seconds / STATED_FLOPS,
        "mfu_of_measured": flops / seconds / matmul_flops,
        "peak_gb": card.peak_gb(),
    }


def padded_rows(
    batch: StepBatch, starts: list[int], members: Sequence[int], card: Card
) -> tuple[Tensor, Tensor, Tensor]:
    """(token ids, attention mask, whether a token is one of the response), each [members, longest], on the card.

    Prompts are of one length, so all padding is at the end.
    """
    whole = [torch.cat([batch.prompt_ids[i], batch.response_ids[starts[i] : starts[i + 1]]]) for i in members]
    given = [len(batch.prompt_ids[i]) for i in members]
    ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)
    at = torch.arange(ids.shape[1])
    mask = at < torch.tensor([len(sequence) for sequence in whole])[:, None]
    response = mask & (at >= torch.tensor(given)[:, None])
    return ids.to(card.device), mask.long().to(card.device), response.to(card.device)


def whole_logits(model: Any) -> Callable[..., Tensor]:
    """The loss out of all logits of the responses' positions: log-probs of the targets and the clipped surrogate."""

    def loss(ids: Tensor, mask: Tensor, response: Tensor) -> Tensor:
        kept = int(response.any(0).sum()) + 1
        logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=kept, use_cache=False).logits[:, :-1]
        targets, counts = ids[:, 1 - kept :], response[:, 1 - kept :]
        # Row by row, so that no float32 copy of all logits exists at once.
        rows = [
            own.log_softmax(-1).gather(1, wanted[:, None])[:, 0] for own, wanted in zip(logits, targets, strict=True)
        ]
        return clipped(torch.stack(rows), counts)

    return loss


def clipped(logp: Tensor, counts: Tensor) -> Tensor:
    """The mean clipped surrogate at advantage 1, given log-probs of the targets. On policy, as TRL's first step."""
    ratio = torch.exp(logp - logp.detach())
    surrogate = torch.minimum(ratio, ratio.clamp(0.8, 1.2))
    return -(surrogate * counts).sum() / counts.sum()


def liger(model: Any) -> Callable[..., Tensor]:
    """Liger's fused GRPO loss over the hidden states, with its kernels in the model's layers."""
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss  # type: ignore[import-not-found, unused-ignore]
    from liger_kernel.transformers import _apply_liger_kernel_to_instance  # type: ignore[import-not-found, unused-ignore]

    _apply_liger_kernel_to_instance(model=model, fused_linear_cross_entropy=False)
    fused = LigerFusedLinearGRPOLoss(beta=0.0, use_ref_model=False, loss_type="grpo", compiled=False)

    def loss(ids: Tensor, mask: Tensor, response: Tensor) -> Tensor:
        kept = int(response.any(0).sum()) + 1
        value: Tensor
        hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, -kept:-1]
        advantages = torch.ones(len(ids), device=ids.device)
        value, _ = fused(hidden, model.lm_head.weight, ids[:, 1 - kept :], response[:, 1 - kept :].long(), advantages)
        return value

    return loss


def work_of(batch: StepBatch, causal_lm: Any) -> tuple[int, float]:
    """(tokens of the batch, floating-point operations that a forward and backward of them needs)."""
    responses = batch.cu_seqlens.diff().tolist()
    lengths = [len(prompt) + response for prompt, response in zip(batch.prompt_ids, responses, strict=True)]
    config, useful = causal_lm.config, sum(lengths)
    parameters = sum(p.numel() for p in causal_lm.parameters())
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    return useful, 6.0 * parameters * useful + 12.0 * config.num_hidden_layers * width * pairs
