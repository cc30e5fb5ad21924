"""The addresses of the services on this machine, one small file each, for `ratchet up` and `ratchet status`."""

import json
import os
from pathlib import Path

from services.run.json_text import json_text


def announce_address(folder: Path | None, service: str, url: str) -> None:
    """Write the address of a service; the service calls it once it listens. Without a folder this does nothing."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{service}.json"
    draft.write_text(json_text({"url": url, "pid": os.getpid()}), encoding="utf-8")
    draft.rename(folder / f"{service}.json")


def addresses(folder: Path) -> dict[str, str]:
    """Service -> URL, of the services that have announced theirs."""
    found = {}
    for path in sorted(folder.glob("[!.]*.json")):
        found[path.stem] = json.loads(path.read_text(encoding="utf-8"))["url"]
    return found
