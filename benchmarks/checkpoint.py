"""How long a checkpoint keeps the learner from its next step: written at once, or copied and written in the background.

    python -m benchmarks.checkpoint --mib 512 --folder /tmp --out build/checkpoint.json

The state is random tensors of that size, 12 bytes a parameter as the learner has them, written by what the learner writes
with (learner/engine/part_writer.py), on the disk of `--folder`. Each figure is the median of `--times` checkpoints; the first
copy, which takes fresh memory, is told by itself. Not measured: DeepSpeed, and several ranks, which write at the same time.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from learner.engine.part_writer import PartWriter
from learner.engine.state_files import Columns

PARAMETERS = 64
"""Tensors of each column."""


def columns_of(mib: int) -> Columns:
    elements = mib * 2**20 // 12 // PARAMETERS
    return {
        column: {f"parameter {number}": (0, torch.randn(elements)) for number in range(PARAMETERS)}
        for column in ("weights", "exp_avg", "exp_avg_sq")
    }


def seconds(writer: PartWriter, folder: Path, columns: Columns, *, in_background: bool) -> tuple[float, float]:
    """(until a step may be taken, until it is on the disk)."""
    path, start = folder / "rank-00000.pt", time.perf_counter()
    writer.write(path, columns, {"steps": {}, "buffers": {}}, in_background=in_background)
    free = time.perf_counter() - start
    writer.is_done(wait=True)
    done = time.perf_counter() - start
    path.unlink()
    return free, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = columns_of(arguments.mib)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        at_once = [seconds(PartWriter(), folder, columns, in_background=False) for _ in range(arguments.times)]
        writer = PartWriter()
        first = seconds(writer, folder, columns, in_background=True)
        later = [seconds(writer, folder, columns, in_background=True) for _ in range(arguments.times)]
    rows = {
        "at once": tuple(map(statistics.median, zip(*at_once, strict=True))),
        "in the background, the first": first,
        "in the background, later ones": tuple(map(statistics.median, zip(*later, strict=True))),
    }
    print(f"{arguments.mib} MiB        standstill, s   of at once   on the disk, s")
    for row, (free, done) in rows.items():
        print(f"{row:32s} {free:8.3f} {free / rows['at once'][0]:12.3f} {done:12.3f}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"mib": arguments.mib, "seconds": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
