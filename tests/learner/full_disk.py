"""A learner's checkpoints on a disk of 1 MiB that is full before, while and after one is written.

`python -m tests.learner.full_disk FOLDER`, where FOLDER is such a disk, prints as JSON what came of each try.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch

from learner.checkpoint import Checkpoints
from learner.engine.part_writer import PartWriter
from learner.engine.state_files import Columns
from services.cause import disk_full
from services.run.checkpoint_files import newest_whole

PAGE = 4096


def save(folder: Path, policy_version: int, *, in_background: bool) -> None:
    """As one rank does, and rank 0 after it."""
    columns: Columns = {"weights": {"w": (0, torch.full((20_000,), float(policy_version)))}}
    checkpoints, writer = Checkpoints(folder, keep=2), PartWriter()
    staging = checkpoints.begin(policy_version)
    try:
        writer.write(staging / "rank-00000.pt", columns, {"steps": {}, "buffers": {}}, in_background=in_background)
        writer.is_done(wait=True)
        checkpoints.commit(staging, policy_version, {"policy_version": policy_version})
    except Exception:
        checkpoints.abandon(staging)
        raise


def main(folder: Path) -> None:
    checkpoints, ballast = folder / "checkpoints", folder / "ballast"
    save(checkpoints, 1, in_background=False)
    found = []
    for free_pages in range(0, 30, 2):
        for in_background in (False, True):
            ballast.unlink(missing_ok=True)
            room = shutil.disk_usage(folder).free // PAGE - free_pages
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, room * PAGE)
            error = ""
            try:
                save(checkpoints, 2, in_background=in_background)
            except Exception as fault:
                full = disk_full(fault)
                error = "not known as a full disk: " + repr(fault) if full is None else str(full)
            newest = newest_whole(checkpoints)
            left = sorted(path.name for path in checkpoints.iterdir())
            found.append({"free": free_pages, "error": error, "newest": newest and newest.name, "left": left})
            shutil.rmtree(checkpoints / "step-00000002", ignore_errors=True)
    ballast.unlink()
    save(checkpoints, 2, in_background=True)
    newest = newest_whole(checkpoints)
    found.append({"free": None, "error": "", "newest": newest and newest.name, "left": []})
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
