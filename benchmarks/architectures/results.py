"""What a row found: one JSON object, and its line in the table of docs/models.md."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

TOLERANCE_NATS = 1e-3
"""Largest difference of a log-prob in float32: what a run allows before its first swap (docs/models.md)."""
ROUNDINGS = 2.0
"""In bfloat16, how many times what rounding does to the learner itself the mean difference to the engine may be..."""
SLACK_NATS = 0.01
"""... and how much more: a model whose rounding happens to be small is not held to it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Differences of log-probs, in nats."""

    mean: float
    largest: float

    @classmethod
    def between(cls, one: Sequence[float], other: Sequence[float]) -> "Gap":
        apart = [abs(a - b) for a, b in zip(one, other, strict=True)]
        return cls(sum(apart) / len(apart), max(apart))


@dataclass(slots=True)
class Row:
    """Each field is None until it is known; `refused` or `fault` says why the rest is."""

    name: str
    dtype: str
    architecture: str
    refused: str | None = None
    """What `ratchet config` says of it."""
    fault: str | None = None
    """What went wrong, and where."""
    packs: bool | None = None
    """Whether the learner lays several sequences in a row."""
    rounding: Gap | None = None
    """In bfloat16: the learner against itself with the same weights in float32."""
    disk: Gap | None = None
    """Engine against learner, weights from disk."""
    unchanged: Gap | None = None
    """The engine against itself, after the weights that it has are sent to it."""
    moved: Gap | None = None
    """The learner against itself, before and after its weights are changed."""
    swapped: Gap | None = None
    """Engine against learner, after the changed weights are swapped in."""
    swap_kind: str | None = None
    """How they were: by an exchange, or by a reload where the model's weights cannot be exchanged."""
    back: Gap | None = None
    """The engine against itself, with the first weights reloaded and with the same weights swapped in again at the end."""
    sampled: Gap | None = None
    """Log-probs that came with sampled tokens against the learner's."""
    transformers: Gap | None = None
    """The export in the installed transformers against the learner."""
    exported: Gap | None = None
    """The export in a new engine against the engine that was sent the same weights."""
    older: Gap | None = None
    """The export in an older transformers against the learner."""
    older_fault: str | None = None
    """Why the older transformers does not read it."""
    older_reads_source: bool | None = None
    """Where it does not: whether it reads what the installed transformers wrote, which the export was made from."""
    seconds: float | None = None
    versions: Mapping[str, str | None] | None = None

    @property
    def agrees(self) -> bool:
        """Whether engine and learner compute the same at each place, and the export is the model."""
        return self.refused is None and self.fault is None and not self.failures()

    def failures(self) -> list[str]:
        """The comparisons that do not hold, with their figures."""
        rounding = self.rounding.mean if self.rounding else 0.0
        bound = TOLERANCE_NATS if self.dtype == "float32" else ROUNDINGS * rounding + SLACK_NATS

        def far(gap: Gap) -> bool:
            return not (gap.largest if self.dtype == "float32" else gap.mean) <= bound

        compared = {
            "weights on disk": self.disk,
            "weights swapped in": self.swapped,
            "sampled tokens": self.sampled,
            "export in transformers": self.transformers,
            "export in vLLM": self.exported,
            "export in an older transformers": self.older,
        }
        found = [
            f"{what}: {gap.mean:.2g}, {gap.largest:.2g} nats" for what, gap in compared.items() if gap and far(gap)
        ]
        untried = ["weights on disk", "weights swapped in", "sampled tokens", "export in transformers"]
        if self.dtype == "float32":
            untried.append("export in vLLM")
        found += [f"{what}: not tried" for what in untried if compared[what] is None]
        if self.older_reads_source:
            found.append(f"an older transformers reads the source and not the export: {self.older_fault}")
        if self.unchanged and not self.unchanged.largest <= 1e-6:
            found.append(f"its own weights, sent to it, moved it by {self.unchanged.largest:.2g} nats")
        if self.back and self.back.largest:
            found.append(f"weights swapped in again are {self.back.largest:.2g} nats from the same weights reloaded")
        if self.moved and not self.moved.mean > 3 * bound:
            found.append(f"the change of weights is too small to show: {self.moved.mean:.2g} nats")
        return found


def read(path: Path) -> list[Row]:
    """Rows in the order of their lines; the last one of a name and dtype counts."""
    if not path.exists():
        return []
    rows: dict[tuple[str, str], Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = parse(line)
        rows[row.name, row.dtype] = row
    return list(rows.values())


def parse(line: str) -> Row:
    values = json.loads(line)
    gaps = {name: Gap(**value) for name, value in values.items() if isinstance(value, dict) and name != "versions"}
    return Row(**(values | gaps))


def append(path: Path, row: Row) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


HEAD = (
    "| model | class | dtype | rows | disk | after a swap | sampled | export: transformers | vLLM | transformers 4.57 |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def table(rows: Iterable[Row], missing: Iterable[tuple[str, str]] = ()) -> str:
    """Markdown: mean and largest difference in nats at each place. missing: names and dtypes without a result."""
    not_run = (f"| {name} | | {dtype} | not run yet | | | | | | |\n" for name, dtype in missing)
    lines = dict.fromkeys(_line(row) for row in rows)  # a model that is refused is refused in either dtype
    return HEAD + "".join([*lines, *not_run])


def _line(row: Row) -> str:
    if row.refused is not None:
        return f"| {row.name} | {row.architecture} | either | refused by `ratchet config` | | | | | | |\n"
    first = f"| {row.name} | {row.architecture} | {row.dtype} |"
    if row.fault is not None:
        return f"{first} **fails**: {_plain(row.fault)} | | | | | | |\n"
    cells = [_gap(gap) for gap in (row.disk, row.swapped, row.sampled, row.transformers, row.exported)]
    cells.append("reads neither it nor its source" if row.older_fault else _gap(row.older))
    return f"{first} {'shared' if row.packs else 'one sequence'} | {' | '.join(cells)} |\n"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:200]


def _gap(gap: Gap | None) -> str:
    if gap is None:
        return ""
    return "0" if gap.largest == 0 else f"{gap.mean:.1g}, {gap.largest:.1g}"
