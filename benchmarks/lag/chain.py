"""A longer task: the running totals of 24 digits, each modulo 10, 25 tokens with the end; one slip and the rest is wrong.

So an importance weight of a whole sequence is a product of 25, and the effective sample size falls long before a token's
own ratio says anything. The starting model knows the rule and slips now and then, by what it was trained on, as in the
addition example: 0.4 of its samples are right. Two teachers, for the methods that distil, slip less: 0.9 of theirs are
right. All built at first use from one model without slips, some minutes on one core; the same every time.

With free tokens: totals of the first 12 digits, then 12 tokens that may be any digit. Those are as uncertain in a right
response as in a wrong one and make most of the gradient of both; without them a right response is one of certain tokens.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.lag.task import ANY, Task

DIGITS, END, EQUALS, PAD = 24, 10, 11, 12
WIDTH, LAYERS = 96, 3
CLEAN_STEPS, SLIP_STEPS, BATCH, LEARNING_RATE = 600, 120, 96, 2e-3
SLIP, FREE_SLIP = 0.042, 0.082
"""Slips of the starting models: (1 - 0.9 x 0.042)^24 = 0.4 = (1 - 0.9 x 0.082)^12."""
TEACHER_SLIP = 0.0049
"""(1 - 0.9 x 0.0049)^24 = 0.9."""
TRAIN, HELDOUT = 20_000, 500


def chain(models: Path, width: int = WIDTH, *, free: bool = False) -> Task:
    """models: the folder that starting models are kept in. free: with free tokens, and no teachers."""
    chain_name = "chain" if width == WIDTH else f"chain-{width}"
    name = f"{chain_name}-free" if free else chain_name
    clean = models / f"{chain_name}-clean"
    start = _model(models / name, clean, width, slip=FREE_SLIP if free else SLIP, seed=1, free=free)
    teachers = (
        ()
        if free
        else tuple(
            _model(models / f"{name}-teacher-{i}", clean, width, slip=TEACHER_SLIP, seed=2 + i) for i in range(2)
        )
    )
    digits = torch.randint(0, 10, (TRAIN + HELDOUT, DIGITS), generator=torch.Generator().manual_seed(20260))
    totals = digits.cumsum(1) % 10
    if free:
        totals[:, DIGITS // 2 :] = ANY
    problems = tuple(
        ((*given, EQUALS), (*answer, END)) for given, answer in zip(digits.tolist(), totals.tolist(), strict=True)
    )
    assert len(set(problems)) == len(problems)  # so held-out problems are none of the others
    return Task(name, start, END, problems[HELDOUT:], problems[:HELDOUT], learning_rate=1e-3, teachers=teachers)


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


def _model(folder: Path, clean: Path, width: int, *, slip: float, seed: int, free: bool = False) -> Path:
    """`folder`, with a model that slips as often as the solutions it saw last. clean: the same of one that does not."""
    if (folder / "config.json").exists():
        return folder
    from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

    if not (clean / "config.json").exists():
        torch.manual_seed(0)
        config = Qwen2Config(
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
        _fit(Qwen2ForCausalLM(config), CLEAN_STEPS, 0.0, seed=0, warmup=50, final=1.0, folder=clean)
    started = AutoModelForCausalLM.from_pretrained(clean, dtype=torch.float32)
    _fit(started, SLIP_STEPS, slip, seed=seed, warmup=10, final=0.1, folder=folder, free=free)
    return folder


def _fit(
    model: Any, steps: int, slip: float, *, seed: int, warmup: int, final: float, folder: Path, free: bool = False
) -> None:
    """To the totals of solutions, the rate falling to `final` of itself; into the folder, whole or not at all."""
    print(f"building {folder.name}", flush=True)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(step / warmup, 1 - (1 - final) * step / steps)
        rows = solutions(BATCH, slip, random, free=free)
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
    beside.rename(folder)
