"""Memory and time of the learner's head beside whole logits, and beside the head of another checkout.

    python -m benchmarks.head [--tokens 8192] [--vocabulary 151936] [--hidden 128] [--before CHECKOUT] [--rounds 2]

Forward and backward of log-probs over random hidden states: how much the process grows at its peak, and seconds. Every case runs
in a process of its own, one thread, no GPU. Growth is the peak of its resident memory from just before the first forward, after a
small one has loaded every library; the gradients of hidden states and lm_head are part of it. Whole logits compute the log-probs
alone; the head also says entropy and residual. Prints a table of medians and writes JSON. The target: at most 0.1 of the growth
of whole logits in at most 1.1 times their processor time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

ROOT = Path(__file__).resolve().parents[1]
WHOLE, HEAD, BEFORE = "whole logits", "head", "head before"
TARGET = {"growth": 0.1, "processor": 1.1}
WORKER = """
import inspect, json, sys, time
from pathlib import Path
import torch
from learner.engine.head import token_statistics
from services.models.head_chunk import chunk_tokens

asked = json.loads(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(0)

def whole(hidden, weight, target):
    return (hidden @ weight.t()).log_softmax(-1).gather(1, target[:, None])[:, 0]

def chunked(hidden, weight, target):
    chunk = asked["chunk"]
    if chunk is None:
        from learner.engine.head import chunk_tokens
        chunk = chunk_tokens(len(weight), "cpu")
    return token_statistics(hidden, weight, target, torch.ones(len(target)), chunk=chunk)[0]

def given(tokens):
    hidden = torch.randn(tokens, asked["hidden"]).requires_grad_()
    weight = (torch.randn(asked["vocabulary"], asked["hidden"]) * 0.2).requires_grad_()
    return hidden, weight, torch.randint(asked["vocabulary"], (tokens,))

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024

work = whole if asked["case"] == "whole logits" else chunked
warm = given(4)
work(*warm).sum().backward()
del warm
tensors = given(asked["tokens"])
Path("/proc/self/clear_refs").write_text("5")  # forget the peak
before = resident("VmRSS")
wall, processor = time.perf_counter(), time.process_time()
work(*tensors).sum().backward()
spent = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
print(json.dumps({"growth": resident("VmHWM") - before, **spent}))
"""


def measured(case: str, checkout: Path, asked: dict[str, Any]) -> dict[str, float]:
    """growth in bytes, wall and processor seconds of one case."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, json.dumps({**asked, "case": case})],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{case} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--before", type=Path, help="another checkout, whose head is measured too, in chunks of 1,024")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(".bench/head"))
    given = parser.parse_args()
    asked = {"tokens": given.tokens, "vocabulary": given.vocabulary, "hidden": given.hidden, "chunk": None}
    cases = [(WHOLE, ROOT, asked), (HEAD, ROOT, asked)]
    if given.before is not None:
        cases.append((BEFORE, given.before.resolve(), asked | {"chunk": 1024}))
    found: dict[str, list[dict[str, float]]] = {case: [] for case, *_ in cases}
    for number in range(given.rounds):
        for case, checkout, of in cases if number % 2 == 0 else reversed(cases):
            found[case].append(measured(case, checkout, of))
    middle = {
        case: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for case, runs in found.items()
    }
    print(
        "| case | growth, GiB | of whole logits | processor, s | of whole logits | wall, s |\n|---|---|---|---|---|---|"
    )
    for case, run in middle.items():
        part = {key: run[key] / middle[WHOLE][key] for key in TARGET}
        print(
            f"| {case} | {run['growth'] / 2**30:.2f} | {part['growth']:.3f} | {run['processor']:.1f} | "
            f"{part['processor']:.2f} | {run['wall']:.1f} |"
        )
    met = {key: middle[HEAD][key] <= bound * middle[WHOLE][key] for key, bound in TARGET.items()}
    for key, is_met in met.items():
        print(f"{'met   ' if is_met else 'MISSED'} {key}: at most {TARGET[key]} of whole logits")
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "head.json"
    report = {"asked": asked, "medians": middle, "runs": found, "targets_met": met, "machine": machine(("torch",))}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
