"""A longer task: the running totals of 24 digits, each modulo 10, 25 tokens with the end; one slip and the rest is wrong.

So an importance weight of a whole sequence is a product of 25, and the effective sample size falls long before a token's
own ratio says anything. The starting model knows the rule and slips now and then, by what it was trained on, as in the
addition example: 0.4 of its samples are right. Built at first use, two or three minutes on one core; the same every time.

With free tokens: totals of the first 12 digits, then 12 tokens that may be any digit. Those are as uncertain in a right
response as in a wrong one and make most of the gradient of both; without them a right response is one of certain tokens.
Its starting model is that of the chain task, trained on by some more such solutions.
"""

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.lag.task import ANY, Task

DIGITS, END, EQUALS, PAD = 24, 10, 11, 12
WIDTH, LAYERS = 96, 3
CLEAN_STEPS, SLIP_STEPS, BATCH, LEARNING_RATE = 500, 120, 96, 2e-3
SLIP, FREE_SLIP = 0.042, 0.082
"""(1 - 0.9 x 0.042)^24 = 0.4 = (1 - 0.9 x 0.082)^12."""
TRAIN, HELDOUT = 20_000, 500


def chain(models: Path, width: int = WIDTH, *, free: bool = False) -> Task:
    """models: the folder that starting models are kept in. free: with free tokens."""
    name = ("chain" if width == WIDTH else f"chain-{width}") + ("-free" if free else "")
    folder = models / name
    if not (folder / "config.json").exists():
        build(folder, width, chain(models, width).model if free else None)
    digits = torch.randint(0, 10, (TRAIN + HELDOUT, DIGITS), generator=torch.Generator().manual_seed(20260))
    totals = digits.cumsum(1) % 10
    if free:
        totals[:, DIGITS // 2 :] = ANY
    problems = tuple(
        ((*given, EQUALS), (*answer, END)) for given, answer in zip(digits.tolist(), totals.tolist(), strict=True)
    )
    assert len(set(problems)) == len(problems)  # so held-out problems are none of the others
    return Task(name, folder, END, problems[HELDOUT:], problems[:HELDOUT], learning_rate=2e-4)


def solutions(count: int, slip: float, random: torch.Generator, *, free: bool = False) -> Tensor:
    """Digits, =, totals that go on from whatever stands before them, end. int64 [count, 2 x DIGITS + 2].

    free: the later half of the totals is any digits instead.
    """
    digits = torch.randint(0, 10, (count, DIGITS), generator=random)
    columns, total = [], torch.zeros(count, dtype=torch.int64)
    for i in range(DIGITS):
        if free and i >= DIGITS // 2:
            columns.append(torch.randint(0, 10, (count,), generator=random))
            continue
        slipped = torch.rand(count, generator=random) < slip
        total = torch.where(slipped, torch.randint(0, 10, (count,), generator=random), (total + digits[:, i]) % 10)
        columns.append(total)
    whole = [digits, torch.full((count, 1), EQUALS), torch.stack(columns, 1), torch.full((count, 1), END)]
    return torch.cat(whole, 1)


def build(folder: Path, width: int = WIDTH, chain_model: Path | None = None) -> None:
    """Right solutions until the rule is known, then solutions with slips. chain_model: knows it; slips with free tokens."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    print(f"building {folder.name}, the starting model of a chain task", flush=True)
    torch.manual_seed(0)
    model = (
        Qwen2ForCausalLM.from_pretrained(chain_model)
        if chain_model
        else Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=16,
                hidden_size=width,
                intermediate_size=3 * width,
                num_hidden_layers=LAYERS,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=END,
                pad_token_id=PAD,
            )
        )
    )
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(CLEAN_STEPS + 1 if chain_model else 1, CLEAN_STEPS + SLIP_STEPS + 1):
        slipping = step > CLEAN_STEPS
        left = 1 - (step - CLEAN_STEPS) / SLIP_STEPS if slipping else 1.0
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, step / 50) * max(0.1, left)
        slip = FREE_SLIP if chain_model else SLIP
        rows = solutions(BATCH, slip if slipping else 0.0, random, free=chain_model is not None)
        labels = rows.clone()
        labels[:, : DIGITS + 1] = -100
        loss = model(rows, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"  step {step}: {loss.item():.3f} nats a token", flush=True)
    beside = folder.with_name(f"{folder.name}.partial")
    model.save_pretrained(beside)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside.rename(folder)
