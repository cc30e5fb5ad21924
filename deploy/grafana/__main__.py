"""Writes deploy/grafana/dashboards/*.json from the boards, for Grafana to load.

python -m deploy.grafana            # or: make dashboards
python -m deploy.grafana --check    # writes nothing; exit code 1 when a file is out of date
"""

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.boards import BOARDS

FOLDER = Path(__file__).parent / "dashboards"


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    pages = {
        FOLDER / f"{board.uid}.json": JSONEncoder(sort_keys=True, indent=1).encode(board.build().build()) + "\n"
        for board in BOARDS
    }
    gone = set(FOLDER.glob("*.json")) - set(pages)
    outdated = [path for path, page in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != page]
    if arguments == ["--check"]:
        for path in [*outdated, *gone]:
            print(f"{path.name} is not what the boards say; run `make dashboards` and commit it", file=sys.stderr)
        return 1 if outdated or gone else 0
    for path in outdated:
        path.write_text(pages[path], encoding="utf-8")
    for path in gone:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
