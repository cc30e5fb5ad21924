"""The requests on the pages, which are commands of curl, also where there is no curl."""

import shlex
import shutil
import subprocess

import httpx


def answer_to(command: str) -> str:
    """What the command prints; a machine without curl makes the same request otherwise."""
    words = shlex.split(command)
    if shutil.which("curl"):
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    _, _, url, _, header, _, body = words  # curl -s URL -H HEADER -d BODY
    name, _, value = header.partition(": ")
    return httpx.post(url, headers={name: value}, content=body, timeout=60).text
