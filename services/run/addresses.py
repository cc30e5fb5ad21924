"""The addresses of what runs on this machine, in one small file a service, for `ratchet up` and `ratchet status`."""

import json
import os
from pathlib import Path


def announce_address(folder: Path | None, service: str, url: str) -> None:
    """Written by the service itself once it listens; without a folder nobody wants to know."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{service}.json"
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    draft.rename(folder / f"{service}.json")


def addresses(folder: Path) -> dict[str, str]:
    """Service -> URL, as far as announced."""
    found = {}
    for path in sorted(folder.glob("[!.]*.json")):
        found[path.stem] = json.loads(path.read_text(encoding="utf-8"))["url"]
    return found
