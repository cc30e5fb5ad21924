"""The report of `ratchet verify`: how the graders judged, and where a person would have judged differently."""

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.numbers import count
from services.wire.verdict import Score, Verdict
from verifier.offline.lines import Line

VERDICTS: tuple[Verdict, ...] = ("correct", "incorrect", "error", "timeout")
SHOWN_AT_FIRST = 5
KEPT = 1000  # disagreements of each kind; --out has them all
EXCERPT_CHARACTERS = 60
KINDS = {
    "false positive": "accepted though they should not be: what a model will learn to do",
    "false negative": "rejected though they are right",
    "no verdict": "error or timeout, though a verdict was expected or nothing was",
    "other": "an error or a timeout was expected",
}


@dataclass
class _Grader:
    verdicts: Counter[str] = field(default_factory=Counter)
    rewards: float = 0.0
    seconds: "array[float]" = field(default_factory=lambda: array("d"))


class Report:
    """Memory use: eight bytes a line, and up to KEPT disagreements of each kind."""

    def __init__(self) -> None:
        self._graders: dict[str, _Grader] = {}
        self._confusion: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[tuple[Line, Score]]] = {kind: [] for kind in KINDS}

    @property
    def met(self) -> bool:
        """Whether every expectation was met."""
        return all(expected == given for expected, given in self._confusion)

    def add(self, line: Line, score: Score) -> None:
        grader = self._graders.setdefault(line.item.grader, _Grader())
        grader.verdicts[score.verdict] += 1
        grader.rewards += score.reward or 0.0
        grader.seconds.append(score.elapsed_s)
        if line.expected is not None:
            self._confusion[line.expected, score.verdict] += 1
        kind = kind_of(line.expected, score.verdict)
        if kind is not None:
            self._counts[kind] += 1
            if len(self._examples[kind]) < KEPT:
                self._examples[kind].append((line, score))

    def show(self, console: Console, *, every_disagreement: bool) -> None:
        if self._confusion:
            self._show_confusion(console)
        for kind in KINDS:
            self._show_examples(console, kind, KEPT if every_disagreement else SHOWN_AT_FIRST)
        self._show_graders(console)

    def _show_confusion(self, console: Console) -> None:
        compared = sum(self._confusion.values())
        agreed = sum(many for (expected, given), many in self._confusion.items() if expected == given)
        console.print(
            f"agreement {_percent(agreed, compared)} ({count(agreed)} of {count(compared)})   "
            f"false positives {count(self._counts['false positive'])}   false negatives {count(self._counts['false negative'])}",
            highlight=False,
        )
        table = Table("expected", *VERDICTS, title="expected x verdict", title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for expected in VERDICTS:
            row = [self._confusion[expected, given] for given in VERDICTS]
            if any(row):
                table.add_row(expected, *(count(many) if many else "-" for many in row))
        console.print(table)

    def _show_examples(self, console: Console, kind: str, most: int) -> None:
        if not self._counts[kind]:
            return
        console.print(Text(f"{kind}: {count(self._counts[kind])} ({KINDS[kind]})"))
        for line, score in self._examples[kind][:most]:
            console.print(Text(f"  {describe(line, score)}"), soft_wrap=True)
        if (left := self._counts[kind] - min(most, len(self._examples[kind]))) > 0:
            console.print(Text(f"  and {count(left)} more; --errors shows {count(KEPT)}, --out writes all"))

    def _show_graders(self, console: Console) -> None:
        table = Table("grader", *VERDICTS, "reward", "p50 ms", "p99 ms")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, grader in sorted(self._graders.items()):
            judged = grader.verdicts["correct"] + grader.verdicts["incorrect"]
            mean = f"{grader.rewards / judged:.3f}" if judged else "-"
            seconds = sorted(grader.seconds)
            times = [f"{1000 * quantile(seconds, share):.2f}" for share in (0.5, 0.99)]
            table.add_row(name, *(count(grader.verdicts[verdict]) for verdict in VERDICTS), mean, *times)
        console.print(table)


def kind_of(expected: Verdict | None, given: Verdict) -> str | None:
    """The kind of disagreement; None: there is nothing to look at."""
    if expected == given or (expected is None and given in ("correct", "incorrect")):
        return None
    if expected is not None and given == "correct":
        return "false positive"
    if expected == "correct" and given == "incorrect":
        return "false negative"
    return "no verdict" if given in ("error", "timeout") else "other"


def describe(line: Line, score: Score) -> str:
    """One line about one response, even when the response has several."""
    item = line.item
    shown = repr(item.response[-EXCERPT_CHARACTERS:])  # answers stand at the end
    cut = "..." if len(item.response) > EXCERPT_CHARACTERS else ""
    expected = f", expected {line.expected}" if line.expected else ""
    reference = repr(item.reference)
    if len(reference) > EXCERPT_CHARACTERS:
        reference = reference[:EXCERPT_CHARACTERS] + "..."
    name = "" if item.id == str(line.number) else f" ({item.id[:EXCERPT_CHARACTERS]!r})"
    detail = f": {score.detail}" if score.detail else ""
    return (
        f"line {line.number}{name}: {item.grader} says {score.verdict}{expected}{detail}; "
        f"response {cut}{shown}, reference {reference}"
    ).replace("\n", " ")


def quantile(ordered: "list[float]", share: float) -> float:
    """The value at this share of the ordered values, by nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _percent(part: int, whole: int) -> str:
    """A percentage, rounded down: 100 % means all."""
    return f"{math.floor(10000 * part / whole) / 100:.2f} %"
