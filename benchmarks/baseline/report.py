"""The tables of the rows that there are: `python -m benchmarks.baseline.report [--rows FILE]`, in Markdown.

A line is one kind of model at one lag; its figures are means over seeds, and an interval goes from the lowest to the
highest end of the seeds' own. A dash: noise leaves nothing of a mean gradient's norm in one of the seeds.
"""

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results.json"
PROXY, EXACT, LEAVE_ONE_OUT, NONE = "minimum variance, proxy", "minimum variance, exact", "leave one out", "none"
AGREEMENT = ("seeds x groups", "right", "mixed", "ESS", "norm² right / wrong", "Pearson", "Spearman", "within groups")
VARIANCE = (
    "none",
    "leave one out",
    "exact",
    "**proxy**",
    "its length",
    "its cosine",
    "ratio at equal length",
    "difference (by chance)",
    "halves",
)
KIND = ("task", "method", "learning_rate", "steps", "parameters", "lag")

Row = dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"commands": [], "rows": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def tables(rows: Sequence[Row]) -> str:
    """Agreement of the norms, then the variance and what it cost."""
    kinds: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        kinds[tuple(row[key] for key in KIND)].append(row)
    lines = [(*_kind(of[0]), of) for _, of in sorted(kinds.items(), key=lambda kind: kind[0])]
    norms = [[*kind, *_agreement(of)] for *kind, of in lines]
    variance = [[*kind, *_variance(of)] for *kind, of in lines]
    return "\n\n".join([_table(["model", "lag", *AGREEMENT], norms), _table(["model", "lag", *VARIANCE], variance)])


def _agreement(of: Sequence[Row]) -> list[str]:
    shares = [f"{_mean(of, name):.2f}" for name in ("pass_rate", "mixed_groups", "ess_ratio", "right_to_wrong_norm")]
    names = ("pearson", "spearman", "within_group")
    counted = " + ".join(f"{seeds} x {groups}" for groups, seeds in Counter(row["groups"] for row in of).items())
    return [counted, *shares, *(_spread([row["agreement"][name] for row in of]) for name in names)]


def _variance(of: Sequence[Row]) -> list[str]:
    return [
        *(_ratio(of, name) for name in (NONE, LEAVE_ONE_OUT, EXACT, PROXY)),
        *(_or_dash(_of(of, PROXY, name)) for name in ("length", "cosine", "variance_ratio_at_equal_length")),
        f"{_of(of, PROXY, 'difference'):.2f} ({_of(of, PROXY, 'difference_by_chance'):.2f})",
        f"{_mean(of, 'halves_apart'):.2f}",
    ]


def _kind(row: Row) -> tuple[str, str]:
    usual = "" if (row["learning_rate"], row["steps"]) == (1e-3, 64) else f", {row['learning_rate']:g} x {row['steps']}"
    return f"{row['task']}, {row['method']}, {row['parameters'] / 1e6:.2f} M{usual}", str(row["lag"])


def _mean(rows: Sequence[Row], name: str) -> float:
    return math.fsum(row[name] for row in rows) / len(rows)


def _of(rows: Sequence[Row], baseline: str, name: str) -> float:
    return math.fsum(row["baselines"][baseline][name] for row in rows) / len(rows)


def _or_dash(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _ratio(rows: Sequence[Row], baseline: str) -> str:
    ends = [[row["baselines"][baseline][end] for row in rows] for end in ("low", "high")]
    return f"{_of(rows, baseline, 'variance_ratio'):.2f} [{min(ends[0]):.2f}, {max(ends[1]):.2f}]"


def _spread(values: Sequence[float]) -> str:
    return f"{math.fsum(values) / len(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baseline.report")
    parser.add_argument("--rows", type=Path, default=RESULTS)
    print(tables(read(parser.parse_args().rows)["rows"]))
