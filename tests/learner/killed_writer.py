"""Writers of checkpoints that are killed with SIGKILL at every operation on the file system, one process for each.

`python -m tests.learner.killed_writer FOLDER VERSION` prints, as JSON, what each of them left.
"""

import json
import os
import signal
import sys
from pathlib import Path

from learner.checkpoint import Checkpoints
from services.run.checkpoint_files import newest_whole

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
"""What Python itself reports of such operations (audit events)."""


def save(folder: Path, policy_version: int, content: str) -> None:
    checkpoints = Checkpoints(folder, keep=1)
    staging = checkpoints.begin(policy_version)
    for part in ("weights.pt", "engine.json"):
        (staging / part).write_text(json.dumps({"content": content}), encoding="utf-8")
    checkpoints.commit(staging, policy_version, {"content": content})


def content(folder: Path) -> str:
    """What every part of the newest whole checkpoint says."""
    checkpoint = newest_whole(folder)
    assert checkpoint is not None
    parts = [json.loads((checkpoint / part).read_text()) for part in ("weights.pt", "engine.json", "state.json")]
    (said,) = {part["content"] for part in parts}
    return str(said)


def killed_at(operation: int, folder: Path, policy_version: int) -> bool:
    """Whether a process that saves was killed before that operation, because it came to so many."""
    if (writer := os.fork()) == 0:
        left = operation

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in CHANGES:
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        sys.addaudithook(count)
        save(folder, policy_version, "second")
        os._exit(0)
    _, status = os.waitpid(writer, 0)
    assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFSIGNALED(status)


def main(folder: Path, policy_version: int) -> None:
    """The first checkpoint is of version 7."""
    found: list[dict[str, object]] = []
    while True:
        own = folder / str(len(found))
        save(own, 7, "first")
        killed = killed_at(len(found), own, policy_version)
        survived = content(own)
        save(own, policy_version, "third")  # the next start clears away what is left
        left = sorted(path.name for path in own.iterdir())
        found.append({"killed": killed, "survived": survived, "after": content(own), "left": left})
        if not killed:
            break
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
