"""The rows of one model, in a process of their own: what fails in an engine may take its process along.

    python -m benchmarks.architectures.row NAME FOLDER DTYPE [DTYPE] [--older PATH]

Prints each row as a line of JSON, and before each of its stages a line that names it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch

from benchmarks.architectures.models import MODELS, write_model
from benchmarks.architectures.results import Gap, Row
from benchmarks.architectures.served import Dtype, Served, Trained, run_config
from benchmarks.machine import installed
from learner.engine.export import write_folder
from services.errors import InputError
from services.models.folder import read_model_folder
from tests.architectures import VOCABULARY

TOKENS = [(7 * position) % (VOCABULARY - 1) + 1 for position in range(40)]
"""Longer than every window; no token is what it would be by chance."""
PROMPT = TOKENS[:12]
OLDER = """
import sys, json, torch
from transformers import AutoModelForCausalLM
# transformers' sdpa leaves out a softcap of attention without a word.
kind = {"attn_implementation": "eager"} if "softcap" in open(sys.argv[1] + "/config.json").read() else {}
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], torch_dtype=getattr(torch, sys.argv[2]), **kind).eval()
tokens = json.loads(sys.argv[3])
with torch.no_grad():
    logits = model(torch.tensor([tokens])).logits.float()[0, :-1]
print(json.dumps(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[1:, None])[:, 0].tolist()))
"""


def stage(name: str) -> None:
    print(f"stage: {name}", flush=True)


def measure(row: Row, folder: Path, older: Path | None) -> None:
    """Fill the row. Raises whatever learner and engine raise."""
    dtype = cast(Dtype, row.dtype)
    source = write_model(row.name, dtype, folder / "source")
    row.architecture = str(json.loads((source / "config.json").read_text(encoding="utf-8"))["architectures"][0])
    sent = compare(row, source)
    if sent is None:
        return
    stage("export in transformers")
    export = folder / "export"
    write_folder(sent.learner.settings, sent.learner.checkpoint(), export)
    row.transformers = Gap.between(in_transformers(export, dtype), sent.learner_logp)
    if row.dtype != "float32":
        return  # the same files in another dtype; an engine's start is what takes time
    stage("export in vLLM")
    again = Served(run_config(export, dtype, MODELS[row.name].max_length))
    try:
        again.start()
        row.exported = Gap.between(again.probe(TOKENS), sent.engine_logp)
    finally:
        again.close()
    if older is not None:
        stage("export in an older transformers")
        in_older(row, source, export, sent.learner_logp, older)


@dataclass(frozen=True)
class Compared:
    """The learner with changed weights, and what it and the engine make of TOKENS with them."""

    learner: Trained
    learner_logp: list[float]
    engine_logp: list[float]


def compare(row: Row, source: Path) -> Compared | None:
    """Learner against engine, before and after swaps. Returns None for a model that `ratchet config` refuses."""
    dtype, length = cast(Dtype, row.dtype), MODELS[row.name].max_length
    stage("ratchet config")
    try:
        read_model_folder("model.path", source, max_length=length, device="cpu")
    except InputError as refusal:
        row.refused = str(refusal).replace(str(source), "MODEL")
        return None
    config = run_config(source, dtype, length)
    stage("learner")
    learner = Trained(config.model)
    row.packs = learner.packs
    before = learner.probe(TOKENS)
    if dtype == "bfloat16":
        exact = Trained(run_config(source, "float32", length).model)
        row.rounding = Gap.between(before, exact.probe(TOKENS))
    stage("engine")
    served = Served(config)
    try:
        served.start()
        stage("probe")
        on_disk = served.probe(TOKENS)
        row.disk = Gap.between(on_disk, before)
        stage("swap of the weights that it has")
        first = [(name, weight.clone()) for name, weight in learner.checkpoint()]
        served.swap(0, first)
        reloaded = served.probe(TOKENS)
        row.unchanged = Gap.between(reloaded, on_disk)
        learner.move(0.3)
        moved = learner.probe(TOKENS)
        row.moved = Gap.between(moved, before)
        stage("swap of changed weights")
        row.swap_kind = served.swap(1, learner.checkpoint()).kind
        swapped = served.probe(TOKENS)
        row.swapped = Gap.between(swapped, moved)
        stage("sampling")
        pairs = [
            (float(behavior), own)
            for trajectory in served.sample(PROMPT, size=2, tokens=24)
            for behavior, own in zip(
                trajectory.behavior_logp.numpy(),
                learner.score(PROMPT, trajectory.token_ids.numpy().tolist()),
                strict=True,
            )
        ]
        row.sampled = Gap.between(*zip(*pairs, strict=True))
        stage("swap of the weights that it had")
        served.swap(2, first)
        row.back = Gap.between(served.probe(TOKENS), reloaded)
    finally:
        served.close()
    return Compared(learner, moved, swapped)


def in_transformers(folder: Path, dtype: str) -> list[float]:
    from transformers import AutoConfig, AutoModelForCausalLM

    # transformers' sdpa leaves out a softcap of attention without a word.
    capped = getattr(AutoConfig.from_pretrained(folder), "attn_logit_softcapping", None) is not None
    kind = {"attn_implementation": "eager"} if capped else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **kind).eval()
    with torch.no_grad():
        logits = model(torch.tensor([TOKENS])).logits.float()[0, :-1]
    return [float(x) for x in logits.log_softmax(-1).gather(1, torch.tensor(TOKENS)[1:, None])[:, 0]]


def in_older(row: Row, source: Path, export: Path, expected: list[float], older: Path) -> None:
    """older: a folder with another transformers and what it needs (`pip install --target`), in front of what is installed."""

    def read(folder: Path) -> list[float] | str:
        asked = subprocess.run(
            [sys.executable, "-c", OLDER, str(folder), row.dtype, json.dumps(TOKENS)],
            env=os.environ | {"PYTHONPATH": str(older)},
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
        if asked.returncode:
            return (asked.stderr.strip().splitlines() or ["it ended without a word"])[-1].strip()
        return [float(x) for x in json.loads(asked.stdout.splitlines()[-1])]

    found = read(export)
    if isinstance(found, list):
        row.older = Gap.between(found, expected)
        return
    row.older_fault = found
    row.older_reads_source = isinstance(read(source), list)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures.row")
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("dtypes", choices=("float32", "bfloat16"), nargs="+")
    parser.add_argument("--older", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for dtype in options.dtypes:
        print(json.dumps(asdict(row_of(options.name, dtype, options.folder / dtype, options.older))), flush=True)
    os._exit(0)  # what an engine leaves behind may hold the process


def row_of(name: str, dtype: str, folder: Path, older: Path | None) -> Row:
    began_s = time.monotonic()
    row = Row(name, dtype, MODELS[name].kind)
    try:
        measure(row, folder, older)
    except Exception as fault:
        row.fault = f"{type(fault).__name__}: {fault}"
    row.seconds = round(time.monotonic() - began_s, 1)
    row.versions = dict(map(installed, ("torch", "transformers", "vllm")))
    return row


if __name__ == "__main__":
    main()
