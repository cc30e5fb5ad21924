"""Whether `ratchet plan` says what a learner really takes: peaks of the real engine on a CPU against the formulas.

    python -m benchmarks.plan [--only WORD,...]

Random models, DeepSpeedEngine on one rank and one thread, two micro-batches a step, two steps, then two snapshots. A peak is
the growth of the process's resident memory (VmHWM, set back before each phase) over what it had before the engine was made; a
tiny model has gone the same way before, so that libraries are loaded and warm. glibc is told to map every block of 64 KiB or
more and to give it back when it is freed: otherwise it would keep freed blocks, and peaks would be those of its arenas. The
table goes to stdout, rows to .bench/plan.json.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from services.config import RunConfig
from services.config.load import parse
from services.plan import learner
from services.plan.learner import Training
from services.plan.parts import LEARNER_PHASES, Phase, Place
from services.plan.shape import read_shape

GIVE_BACK = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_MAX_": "1000000",
    "MALLOC_ARENA_MAX": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Environment of a child: see above."""
MARK = "peaks: "
MODELS: dict[str, dict[str, int]] = {
    "deep, 28 M": {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8},
    "vocabulary, 19 M": {"vocab_size": 49152, "hidden_size": 320, "intermediate_size": 896, "num_hidden_layers": 3},
    "rows, 9 M": {"vocab_size": 4096, "hidden_size": 320, "intermediate_size": 896, "num_hidden_layers": 6},
}
TINY = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


@dataclass(frozen=True, slots=True)
class Case:
    """One engine to measure."""

    model: str
    stage: int
    dtype: str = "float32"
    row_tokens: int = 64
    rows: int = 1
    sequences: int = 1
    """In each row."""
    chunk: int = 64
    checkpointing: bool = False

    @property
    def name(self) -> str:
        extra = f", {self.rows} x {self.row_tokens} tokens" + (f" of {self.sequences}" if self.sequences > 1 else "")
        return f"{self.model}, {self.dtype}, ZeRO {self.stage}{extra}" + (
            ", checkpointing" if self.checkpointing else ""
        )

    def run(self, path: Path) -> RunConfig:
        """The settings of a whole run that has this learner."""
        return parse(
            {
                "name": "plan",
                "device": "cpu",
                "model": {"path": str(path), "max_length": self.row_tokens, "dtype": self.dtype},
                "prompts": {"source": {"type": "jsonl", "path": "none.jsonl"}},
                "rollout": {"sampling": {"max_tokens": self.row_tokens // 2}},
                "weights": {"type": "gloo", "bucket_mib": 16},
                "learner": {
                    "steps": 1,
                    "groups_per_step": 1,
                    "zero_stage": self.stage,
                    "row_tokens": self.row_tokens,
                    "rows_per_micro_batch": self.rows,
                    "packed_rows": self.sequences > 1,
                    "head_chunk_tokens": self.chunk,
                    "gradient_checkpointing": self.checkpointing,
                },
            },
            folder=path,
            origin="benchmarks.plan",
        )


CASES = (
    *(Case("deep, 28 M", stage) for stage in (0, 1, 2, 3)),
    *(Case("deep, 28 M", stage, "bfloat16") for stage in (1, 2, 3)),
    Case("vocabulary, 19 M", 1, row_tokens=256, chunk=128),
    Case("vocabulary, 19 M", 0, row_tokens=256, chunk=256),
    Case("vocabulary, 19 M", 2, "bfloat16", row_tokens=256, chunk=256),
    Case("rows, 9 M", 0, row_tokens=512, rows=4),
    Case("rows, 9 M", 0, row_tokens=1024, rows=2, sequences=4),
    Case("rows, 9 M", 1, row_tokens=1024, rows=2, sequences=4, checkpointing=True),
    Case("rows, 9 M", 1, "bfloat16", row_tokens=512, rows=2),
)


def planned(case: Case, path: Path) -> dict[Phase, int]:
    """What the plan says for rank 0, by phase."""
    training = Training(case.run(path), read_shape("model.path", path))
    place = Place("rank 0", learner.parts(training, is_first=True), LEARNER_PHASES)
    return {phase: place.needed_in(phase) for phase in LEARNER_PHASES}


def write_model(path: Path, widths: dict[str, int], dtype: str) -> Path:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    given: dict[str, Any] = {**widths, "bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": True}
    config = Qwen2Config(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096, **given)
    Qwen2ForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(path)
    return path


def resident(key: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measured(case: Case, path: Path) -> dict[Phase, int]:
    """Peaks of one engine by phase, over what the process had before."""
    import torch

    from learner.batch.micro_batch import MicroBatch
    from learner.engine.deepspeed_engine import DeepSpeedEngine
    from learner.engine.policy_model import model_dtype, scoring_batch
    from learner.engine.protocol import TokenStatistics
    from learner.publish.kept_buckets import BucketPool

    run = case.run(path)
    peaks: dict[Phase, int] = {}
    gc.collect()
    before = resident("VmRSS")

    def watch(phase: Phase, work: Callable[[], object]) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        work()
        peaks[phase] = max(peaks.get(phase, 0), resident("VmHWM") - before)

    engine = DeepSpeedEngine(run.model, run.learner, "cpu")
    draw = torch.Generator().manual_seed(0)
    length = case.row_tokens // case.sequences
    vocabulary = engine.model.vocabulary

    def batch() -> MicroBatch:
        sequences = [torch.randint(vocabulary, (length,), generator=draw).tolist() for _ in range(case.sequences)]
        return scoring_batch([sequences] * case.rows)

    def loss(_: MicroBatch, statistics: TokenStatistics) -> tuple[torch.Tensor, None]:
        return -statistics.logp.mean(), None

    batches = [batch(), batch()]
    pool = BucketPool(engine.weight_shapes(model_dtype(run.model)), 16, torch.device("cpu"))

    fetched: list[torch.Tensor] = []

    def snapshot() -> None:
        """As in a run: the version that was sent is held while the next one is made, and one that a replica fetches by itself."""
        kept, filling = pool.take()
        engine.copy_weights(kept.named)
        kept.hold(filling)
        if not fetched:
            fetched.extend(flat.clone() for flat in kept.flat)

    for _ in range(2):
        watch("scoring", lambda: engine.token_statistics(batches, "current"))
        watch("backward", lambda: engine.backward(batches, loss))
        watch("step", lambda: engine.step(1e-4))
        watch("snapshot", snapshot)
    engine.wrapped.destroy()
    return peaks


def child(cases: list[Case]) -> None:
    """Measure cases one after the other, each behind a tiny model of the same kind, and print a line for each."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            tiny = write_model(Path(folder) / f"tiny{number}", TINY, case.dtype)
            path = write_model(Path(folder) / f"model{number}", MODELS[case.model], case.dtype)
            measured(case, tiny)
            plan, seen = planned(case, path), measured(case, path)
            print(MARK + json.dumps({"case": case.name, "planned": plan, "measured": seen}), flush=True)


def row(found: dict[str, Any]) -> dict[str, Any]:
    """Compare by phase and as a whole. Reduction is a part of the step, which is what can be watched."""
    plan, seen = dict(found["planned"]), found["measured"]
    plan["step"] = max(plan["step"], plan.pop("reduction"))
    ratios = {phase: plan[phase] / seen[phase] for phase in seen}
    whole = max(plan[phase] for phase in seen) / max(seen.values())
    return {"case": found["case"], "planned": plan, "measured": seen, "ratios": ratios, "whole": whole}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown: the measured peak, and what was planned relative to it."""
    phases = ("scoring", "backward", "step", "snapshot")
    lines = [
        "| learner | measured peak, MiB | planned / measured | " + " | ".join(phases) + " |",
        "| --- " * (3 + len(phases)) + "|",
    ]
    for one in rows:
        ratios = " | ".join(f"{one['ratios'][phase]:.2f}" for phase in phases)
        peak = max(one["measured"].values()) / 2**20
        lines.append(f"| {one['case']} | {peak:.0f} | **{one['whole']:.2f}** | {ratios} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="words, by comma: cases whose name has one of them")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    words = [word for word in asked.only.split(",") if word]
    cases = [case for case in CASES if not words or any(word in case.name for word in words)]
    if asked.child:
        child(cases)
        return
    command = [sys.executable, "-m", "benchmarks.plan", "--child", "--only", asked.only]
    rows: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | GIVE_BACK) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith(MARK):
                rows.append(row(json.loads(line.removeprefix(MARK))))
                print(f"{rows[-1]['whole']:.2f}  {rows[-1]['case']}", file=sys.stderr, flush=True)
    out = Path(".bench/plan.json")
    out.parent.mkdir(exist_ok=True)
    seen_on = machine(("torch", "deepspeed", "transformers"))
    out.write_text(json.dumps({"machine": seen_on, "rows": rows}, indent=1), encoding="utf-8")
    print(table(rows))
    if running.returncode:
        raise SystemExit(f"the measuring process ended with {running.returncode} after {len(rows)} cases")


if __name__ == "__main__":
    main()
