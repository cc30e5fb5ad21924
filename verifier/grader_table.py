"""The table of graders on docs/verifier.md, made from what the graders say about themselves.

python -m verifier.grader_table docs/verifier.md
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from services.errors import InputError
from services.graders import OURS
from verifier.registry import describe

HEAD = "| name | what it checks | options |\n|---|---|---|\n"
_TABLE = re.compile(re.escape(HEAD) + r"(?:\|.*\n)*")


def table(graders: Mapping[str, str]) -> str:
    """Markdown, a row for each grader. graders: name -> module:class, imported here."""
    return HEAD + "".join(_row(name, location) for name, location in sorted(graders.items()))


def with_table(page: str, graders: Mapping[str, str]) -> str:
    """The page with its table written again. Raises InputError when it has none."""
    if not _TABLE.search(page):
        raise InputError(f"the page has no table of graders, which begins with {HEAD.splitlines()[0]}")
    return _TABLE.sub(lambda _: table(graders), page, count=1)


def _row(name: str, location: str) -> str:
    entry = describe(name, location)
    if entry.fault:
        raise InputError(f"grader {name} cannot be used: {entry.fault}")
    summary = entry.summary.removeprefix(f"Grader `{name}`: ").removesuffix(".").replace("|", "\\|")
    options = entry.options["$defs"][location.partition(":")[2]]["properties"]
    return f"| `{name}` | {summary} | {', '.join(f'`{option}`' for option in options)} |\n"


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8"), OURS), encoding="utf-8")


if __name__ == "__main__":
    main()
