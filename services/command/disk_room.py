"""Whether there is room on the disk for a run: its checkpoints, its model and what is compiled for it."""

import json
import os
import shutil
from pathlib import Path

from services.command.finding import Finding
from services.config import RunConfig

GIB = 2**30
BYTES_PER_PARAMETER = 16
"""Size of a checkpoint by parameter: 8 for the optimizer's moments, 4 for float32 weights, and up to 4 for the reference."""
COMPILED_BYTES = 5 * GIB
"""What vLLM, Triton and torch compile, and what they log."""
LEAST_BYTES = {"cpu": 2 * GIB, "cuda": 30 * GIB}
"""Asked for where nothing is known of the run. On GPU: three checkpoints of half a billion parameters, its files, and what is
compiled."""


def disk_finding(device: str, run: RunConfig | None = None) -> Finding:
    """Compare what is free where the run is kept, by default here, with what it takes."""
    folder = Path.cwd() if run is None else run.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    needed = None if run is None else bytes_of_run(run)
    seen = f"{free / GIB:.1f} GiB free in {folder}"
    if needed is None:
        least = LEAST_BYTES["cuda" if device == "cuda" else "cpu"]
        return Finding(
            "disk", free >= least, seen, "" if free >= least else f"checkpoints need space: free {least // GIB} GiB"
        )
    if free >= needed:
        return Finding("disk", True, f"{seen}; the run takes {needed / GIB:.1f} GiB")
    assert run is not None
    action = (
        f"free space, choose another runs_folder, or lower learner.checkpoint.keep = {run.learner.checkpoint.keep}: the run "
        f"takes {needed / GIB:.1f} GiB for checkpoints, export and what is compiled"
    )
    return Finding("disk", False, seen, action)


def bytes_of_run(run: RunConfig) -> int | None:
    """What a run puts on the disk: the checkpoints that it keeps and one that is being written, its export, and what is
    compiled. None where the model's files are not on this machine yet.
    """
    weights = _weights(run.model.path)
    if weights is None:
        return None
    size_bytes, width = weights
    parameters = size_bytes // width
    checkpoints = (run.learner.checkpoint.kept + 1) * BYTES_PER_PARAMETER * parameters
    return checkpoints + size_bytes + (COMPILED_BYTES if run.device == "cuda" else 0)


def _weights(path: str) -> tuple[int, int] | None:
    """Bytes of the model's weight files, and of one number in them."""
    if Path(path).is_absolute():
        folders = [Path(path)]
    else:
        hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
        folders = sorted((hub / f"models--{path.replace('/', '--')}" / "snapshots").glob("*"))
    for folder in folders:
        if files := list(folder.glob("*.safetensors")):
            return sum(file.stat().st_size for file in files), _width(folder)
    return None


def _width(folder: Path) -> int:
    """Bytes of one number, by the dtype in config.json: 2, or 4 for float32 and where nothing says it."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        dtype = settings.get("dtype") or settings.get("torch_dtype")
    except (OSError, ValueError, AttributeError):
        dtype = None
    return 2 if dtype in ("bfloat16", "float16") else 4
