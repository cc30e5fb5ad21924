"""The live display of `ratchet up`: what it waits for at start-up, then where training stands.

On a terminal it redraws one panel; elsewhere it prints a line every few seconds, so that a log stays readable.
"""

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from services.clock import now_s
from services.command.rooms import LEARNER, ROLLOUT
from services.command.service_warnings import ServiceWarnings
from services.command.shown import number
from services.config import RunConfig
from services.run.addresses import addresses
from services.run.folder import RunFolder
from services.run.tail import Tail
from services.run.waiting import Waiting, read_waiting

REDRAW_EVERY_S = 0.5
LINE_EVERY_S = 10.0
SLOW_S = 30.0
"""A step that takes longer is a reason to say what is known of its groups."""
BARS = " ▁▂▃▄▅▆▇█"


class LiveDisplay:
    """Shows a run from the files that it writes; it asks nothing of the services."""

    def __init__(self, config: RunConfig, console: Console, known: Sequence[str] = ()) -> None:
        """known: warnings that the console has shown before."""
        folder = RunFolder(config.folder)
        self._config = config
        self._console = console
        self._folder = folder
        self._steps = Tail(folder.steps)
        self._evaluations = Tail(folder.evaluations)
        self._warnings = ServiceWarnings(folder.logs, known)
        self._step: dict[str, Any] | None = None  # the newest
        self._pass_rates: list[float] = []
        self._evaluated: list[tuple[int, float | None]] = []  # (policy version, accuracy)
        self._start_s = now_s()
        self._shown_s = self._start_s
        self._stepped_s = self._start_s
        self._first_step: tuple[float, int] | None = None  # when, and the trajectories sampled by then
        self._phase = ""
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> "LiveDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._warn()  # of what ended the run, perhaps
        if self._live:
            self._live.stop()

    def tick(self) -> None:
        """Draw, if it is time to. Called often."""
        now = now_s()
        self._warn()
        new_evaluations = self._read(now)
        if self._live:
            if now - self._shown_s >= REDRAW_EVERY_S:
                self._live.update(self._panel(now), refresh=True)
                self._shown_s = now
            return
        phase = self._waiting_for().partition(":")[0]
        if new_evaluations or phase != self._phase or now - self._shown_s >= LINE_EVERY_S:
            self._console.print(self._line(now), highlight=False, soft_wrap=True)
            self._shown_s = now
            self._phase = phase

    def _warn(self) -> None:
        """Print what the services warn of; above the panel, where there is one."""
        for said in self._warnings.read():
            self._console.print(Text.assemble(("warning: ", "yellow"), said), soft_wrap=True)

    def _read(self, now: float) -> bool:
        """Take in new rows; returns whether there was an evaluation."""
        for row in self._steps.rows():
            self._step = row
            self._stepped_s = now
            if row["pass_rate"] is not None:
                self._pass_rates.append(row["pass_rate"])
            if self._first_step is None:
                self._first_step = (now, row["sampled_trajectories"])
        rows = self._evaluations.rows()
        self._evaluated += [(row["policy_version"], row["avg_at_k"]) for row in rows]
        return bool(rows)

    def _waiting_for(self) -> str:
        """What the run waits for before its first step; empty after it."""
        if self._step:
            return ""
        there = addresses(self._folder.services)
        if LEARNER not in there:
            return "the learner (loading the model)"
        if not any(name.startswith(ROLLOUT) for name in there):
            return "the first rollout replica (starting its engine; half a minute on CPU)"
        if waiting := self._groups():
            return f"the groups of step {waiting.step}: {waiting.said()}"
        if self._evaluated:
            return "the first step"
        return "the first weights" + (" and the first evaluation" if self._config.evaluation else "")

    def _groups(self) -> Waiting | None:
        """What is known of the groups of the next step; None while they are not waited for."""
        waiting = read_waiting(self._folder.waiting)
        return None if waiting is None or (self._step and waiting.step <= self._step["step"]) else waiting

    def _facts(self, now: float) -> list[tuple[str, str]]:
        step = self._step
        if step is None:
            return [("waiting for", self._waiting_for())]
        facts = [
            ("pass rate", f"{number(step['pass_rate'], 2)}  {sparkline(self._pass_rates, 32)}"),
            (
                "held-out accuracy",
                "  ".join(f"{number(accuracy)} @{version}" for version, accuracy in self._evaluated[-4:]) or "-",
            ),
            ("lag", f"{number(step['mean_lag_steps'], 2)} steps (at most {step['max_lag_steps']})"),
            ("ESS ratio", f"{number(step['ess_ratio'])}  (learning rate x {number(step['lr_factor'], 2)})"),
            ("groups", group_counts(step["groups"])),
        ]
        if self._is_slow(now) and (waiting := self._groups()):
            facts.append((f"step {waiting.step}", waiting.said()))
        if self._first_step and now > self._first_step[0] + 1:
            rate = (step["sampled_trajectories"] - self._first_step[1]) / (now - self._first_step[0])
            facts.append(("sampled", f"{rate:,.0f} trajectories/s"))
        return facts

    def _is_slow(self, now: float) -> bool:
        """Whether the last step is long ago."""
        return now - self._stepped_s > SLOW_S

    def _panel(self, now: float) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for name, value in self._facts(now):
            table.add_row(Text(name, style="dim"), value)
        step, steps = (self._step or {}).get("step", 0), self._config.learner.steps
        title = f"{self._config.name}: step {step} of {steps}, {now - self._start_s:.0f} s"
        return Panel(Group(ProgressBar(total=steps, completed=step, width=60), table), title=title, title_align="left")

    def _line(self, now: float) -> str:
        facts = [f"{now - self._start_s:4.0f} s"]
        if self._step is None:
            return f"{facts[0]}  waiting for {self._waiting_for()}"
        step = self._step
        facts.append(f"step {step['step']}/{self._config.learner.steps}")
        facts.append(
            f"pass rate {number(step['pass_rate'], 2)}  lag {number(step['mean_lag_steps'], 2)}  "
            f"ESS {number(step['ess_ratio'], 2)}"
        )
        if self._evaluated:
            version, accuracy = self._evaluated[-1]
            facts.append(f"held-out {number(accuracy)} @{version}")
        if self._is_slow(now) and (waiting := self._groups()):
            facts.append(f"waiting for step {waiting.step}: {waiting.said()}")
        return "  ".join(facts)


def sparkline(values: list[float], width: int) -> str:
    """Draw values in 0..1 as bars, averaged into at most `width` of them."""
    size = max(1, -(-len(values) // width))
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]
    return "".join(BARS[min(8, max(0, round(value * 8)))] for value in means)


def group_counts(groups: dict[str, Any]) -> str:
    """A step's `groups`, in words."""
    dropped = sum(groups["dropped"].values())
    return f"{groups['trained']} trained, {dropped} dropped, {groups['dead']} dead, {groups['outstanding']} outstanding"
