"""Architectures through learner and real engine, on a CPU: the table of docs/models.md.

    python -m benchmarks.architectures                            # rows that have no result yet, then the table
    python -m benchmarks.architectures --again "Gemma 2, tied"    # that row once more, in both dtypes
    python -m benchmarks.architectures --failed                   # rows that do not agree, once more
    python -m benchmarks.architectures --older ~/transformers-4   # exports are read by that transformers, too
    python -m benchmarks.architectures --table                    # the page alone, from the results that there are

Each row: the learner's log-probs against the engine's for the weights on disk, after its own weights were sent to it, after
changed weights were swapped in, and for sampled tokens; then the export in transformers, in a new engine (float32 rows) and, with
`--older`, in an older transformers (`pip install --target FOLDER transformers==4.57.3 'huggingface_hub<1' 'tokenizers<0.23'`). A
model takes 30 to 60 s on two cores and has a process of its own, one after the other. Rows that have a result are not run again,
so a table that was stopped goes on by the same command. Exit code 1: a model that `ratchet config` accepts does not agree.
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.architectures.models import MODELS
from benchmarks.architectures.results import HEAD, Row, append, parse, read, table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.jsonl")
PAGE = ROOT / "docs/models.md"
DTYPES = ("float32", "bfloat16")
ROWS_S = 1200.0
WANTED = list(itertools.product(MODELS, DTYPES))


def main() -> int:
    options = arguments()
    have = {(row.name, row.dtype): row for row in read(RESULTS)}
    due = [
        (name, dtype)
        for name, dtype in WANTED
        if (name in options.only and (name, dtype) not in have)
        or name in options.again
        or (options.failed and (name, dtype) in have and not have[name, dtype].agrees)
    ]
    for name in [] if options.table else dict.fromkeys(name for name, _ in due):
        for row in in_a_process(name, [dtype for of, dtype in due if of == name], options.older):
            append(RESULTS, row)
            said = row.refused or row.fault or "; ".join(row.failures()) or "agrees"
            print(f"{row.name}, {row.dtype} ({row.seconds} s): {said[:300]}", flush=True)
    rows = in_order(read(RESULTS))
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    return 1 if any(row.refused is None and not row.agrees for row in rows) else 0


def in_order(rows: list[Row]) -> list[Row]:
    """Those of models that there still are, in the order of MODELS."""
    have = {(row.name, row.dtype): row for row in rows}
    return [have[key] for key in WANTED if key in have]


def in_a_process(name: str, dtypes: list[str], older: Path | None) -> list[Row]:
    """A row for each dtype, whatever becomes of the process."""
    with tempfile.TemporaryDirectory(prefix="ratchet-architectures-") as folder:
        command = [sys.executable, "-m", "benchmarks.architectures.row", name, folder, *dtypes]
        try:
            run = subprocess.run(
                [*command, *(["--older", str(older.resolve())] if older else [])],
                cwd=ROOT,
                env=_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=ROWS_S,
                check=False,
            )
            lines, ended = run.stdout.splitlines(), f"its process ended with {run.returncode}"
        except subprocess.TimeoutExpired as late:
            lines = (late.stdout or b"").decode(errors="replace").splitlines()
            ended = f"it had no end after {ROWS_S:.0f} s"
    rows = []
    errors = [""]
    for line in lines:
        if line.startswith('{"name"'):
            row = parse(line)
            rows.append(row)
            if row.fault is not None:
                row.fault = f"{row.fault} {errors[-1]}".strip()
            errors = [""]
        elif re.match(r"(\w+\.)*\w+Error: ", line):  # the last line of a traceback, by the engine's processes too
            errors.append(line)
    stages = [line.removeprefix("stage: ") for line in lines if line.startswith("stage: ")]
    fault = f"at {stages[-1] if stages else 'its start'}, {ended}. {errors[-1]}"
    return rows + [Row(name, dtype, MODELS[name].kind, fault=fault) for dtype in dtypes[len(rows) :]]


def _environment() -> dict[str, str]:
    """Python keeps what it compiled, whatever the shell says: each row imports torch and vLLM several times."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}


def with_table(page: str, rows: list[Row]) -> str:
    """The page with its table written again."""
    begin = page.index(HEAD)
    end = page.index("\n\n", begin) + 1
    have = {(row.name, row.dtype) for row in rows}
    return page[:begin] + table(rows, [key for key in WANTED if key not in have]) + page[end:]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.architectures", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--only", action="append", choices=MODELS, help="a model to try, instead of all without a result"
    )
    parser.add_argument("--again", action="append", choices=MODELS, default=[], help="a model to try once more")
    parser.add_argument("--failed", action="store_true", help="try those that do not agree once more")
    parser.add_argument("--older", type=Path, help="a folder with an older transformers")
    parser.add_argument("--table", action="store_true", help="write the page from the results that there are")
    options = parser.parse_args()
    options.only = options.only or ([] if options.again or options.failed else list(MODELS))
    return options


if __name__ == "__main__":
    sys.exit(main())
