"""Where one learner step spends its time: phases, kernels by kind, and what makes the host wait for the card."""

import re
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.batch import engine_of, log_probs, random_batch, row_tokens_of
from benchmarks.gpu.card import Card, case, row
from learner.batch.packing import pack
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.step.learner_step import learner_step

KINDS = [  # the first pattern that a kernel's name has
    ("copies", r"memcpy|memset|copy_kernel|direct_copy|CatArray|bfloat16_copy|float.*copy"),
    ("attention", r"flash|fmha|attention|sdpa|mha_"),
    ("matrix products", r"gemm|gemv|nvjet|cutlass|cublas|xmma|splitK|ampere_|sm90_|sm80_"),
    ("optimizer", r"multi_tensor|adam|lpnorm|foreach"),
    ("softmax", r"softmax"),
    ("gather, scatter, index", r"gather|scatter|index|embedding|nonzero|DeviceSelect"),
    ("sums", r"reduce"),
    ("elementwise", r"elementwise|vectorized|triton"),
]


def profiled(card: Card, argument: str) -> None:
    """argument: model, tokens a row, rows a micro-batch, and perhaps "checkpointing". The learning rate is small."""
    name, asked, rows, *how = argument.split(",")
    row_tokens = row_tokens_of(card, asked)
    engine, settings = engine_of(
        card, name, row_tokens, zero_stage=1, gradient_checkpointing=bool(how), rows_per_micro_batch=int(rows)
    )
    batch = random_batch(card, 32768, 400)
    packed = pack(batch, row_tokens=row_tokens, rows_per_micro_batch=int(rows))
    batch = replace(batch, behavior_logp=log_probs(engine, batch, packed))
    useful = sum(map(len, batch.prompt_ids)) + len(batch.response_ids)
    parameters = sum(p.numel() for _, p in engine.snapshot(torch.bfloat16))
    peak = card.matmul_flops()

    def step() -> None:
        report = learner_step(engine, batch, settings, learning_rate=1e-6)
        if report.skipped:
            raise RuntimeError(f"the step was skipped: {report.skipped}")

    for _ in range(1 if card.cpu else 2):
        step()
    card.forget_peak()
    _, seconds = card.timed(step, 1 if card.cpu else 2)
    mfu = 6 * parameters * useful / seconds / peak
    row("step", tokens=useful, micro_batches=len(packed), seconds=seconds, mfu=mfu, peak_gb=card.peak_gb())
    with case("phases"), phases(card, engine) as spent:
        _, seconds = card.timed(step)
        row("phases", whole_s=seconds, **spent, rest_s=seconds - sum(v for k, v in spent.items() if k.endswith("_s")))
    with case("the host waits"):
        row("the host waits", **synchronizations(card, step))
    with case("kernels"):
        kernels(card, step)


@contextmanager
def phases(card: Card, engine: DeepSpeedEngine) -> Iterator[dict[str, Any]]:
    """Seconds in each call of the engine, with the card idle before and after it; filled while the block runs."""
    spent: dict[str, Any] = {}
    plain: dict[str, Callable[..., Any]] = {}

    def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result, seconds = card.timed(lambda: method(*arguments))
            label = name if len(arguments) < 2 or not isinstance(arguments[1], str) else f"{name}_{arguments[1]}"
            spent[f"{label}_s"] = spent.get(f"{label}_s", 0.0) + seconds
            return result

        return call

    for name in ("token_statistics", "backward", "step"):
        plain[name] = getattr(engine, name)
        setattr(engine, name, timed(name, plain[name]))
    try:
        yield spent
    finally:
        for name in plain:
            delattr(engine, name)


def synchronizations(card: Card, step: Callable[[], None]) -> dict[str, Any]:
    """How often the step makes the host wait for the card, and the lines that do it most. torch warns at each of them."""
    if not card.cpu:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        if not card.cpu:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}"
        for warning in caught
        if "synchronizing CUDA" in str(warning.message)
    )
    return {"times": sum(places.values()), "most": dict(places.most_common(14))}


def kernels(card: Card, step: Callable[[], None]) -> None:
    """Busy share of the card in one step, its time by kind of kernel, the twelve longest, and calls of the runtime."""
    kind = ProfilerActivity.CPU if card.cpu else ProfilerActivity.CUDA
    with profile(activities=[kind], acc_events=False) as recorder:
        began_s = time.monotonic()
        step()
        card.wait()
        wall_s = time.monotonic() - began_s
    events = recorder.profiler.kineto_results.events()
    wanted = torch.profiler.DeviceType.CPU if card.cpu else torch.profiler.DeviceType.CUDA
    on_card = [e for e in events if e.device_type() == wanted]
    spans = sorted((e.start_ns(), e.start_ns() + e.duration_ns()) for e in on_card)
    row("the card", wall_s=wall_s, kernels=len(on_card), busy_share=_covered_ns(spans) / 1e9 / wall_s)
    time_ns: dict[str, int] = defaultdict(int)
    count: Counter[str] = Counter()
    for event in on_card:
        time_ns[event.name()] += event.duration_ns()
        count[event.name()] += 1
    by_kind: dict[str, int] = defaultdict(int)
    for name, spent_ns in time_ns.items():
        by_kind[kind_of(name)] += spent_ns
    row("ms by kind", **{k: v / 1e6 for k, v in sorted(by_kind.items(), key=lambda item: -item[1])})
    for name, spent_ns in sorted(time_ns.items(), key=lambda item: -item[1])[:12]:
        row("kernel", ms=spent_ns / 1e6, times=count[name], kind=kind_of(name), name=re.sub(r"\s+", " ", name)[:150])
    runtime: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for event in events:
        if event.device_type() != wanted and event.name().startswith("cuda"):
            runtime[event.name()] += 1
            spent[event.name()] += event.duration_ns()
    row("calls of the runtime", **{f"{n}": f"{runtime[n]} in {ns / 1e6:.1f} ms" for n, ns in spent.most_common(8)})


def kind_of(kernel: str) -> str:
    return next((kind for kind, pattern in KINDS if re.search(pattern, kernel, re.IGNORECASE)), "other")


def _covered_ns(spans: Sequence[tuple[int, int]]) -> int:
    """Length of the union of these intervals, which are sorted."""
    covered, until = 0, 0
    for begin, end in spans:
        covered += max(0, end - max(begin, until))
        until = max(until, end)
    return covered
