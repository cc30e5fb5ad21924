"""The live display of `ratchet up`: what it waits for at start-up, then where training stands.

On a terminal it redraws one panel; elsewhere it prints a line every few seconds, so that a log stays readable.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from services import log_lines
from services.clock import now_s
from services.command.fleet import FleetWatch, ReplicaView, cells
from services.command.rooms import LEARNER, ROLLOUT
from services.command.service_warnings import ServiceWarnings
from services.command.shown import bars_for, duration, sparkline
from services.command.up_log import say, warn
from services.config import RunConfig
from services.numbers import count, number
from services.run.addresses import addresses
from services.run.folder import RunFolder
from services.run.tail import Tail
from services.run.waiting import Waiting, read_waiting

REDRAW_EVERY_S = 0.5
LINE_EVERY_S = 10.0
SLOW_S = 30.0
"""A step that takes longer is a reason to say what is known of its groups."""
REPLICAS_SHOWN = 16
SOURCES_SHOWN = 6
PACE_STEPS = 20
"""Steps whose pace says how long the rest will take."""


class LiveDisplay:
    """Shows a run from the files that it writes. On a terminal it also asks the replicas for /metrics, in a thread."""

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
        self._paces: deque[tuple[int, float]] = deque(maxlen=PACE_STEPS)  # (step, its wall-clock time)
        self._phase = ""
        is_live = console.is_terminal and not log_lines.is_json()
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_live else None
        self._fleet: FleetWatch | None = None

    def __enter__(self) -> "LiveDisplay":
        if self._live:
            self._live.start()
            self._fleet = FleetWatch(self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._warn()  # of what ended the run, perhaps
        if self._fleet:
            self._fleet.close()
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
            say(self._console, self._line(now), **self._fields())
            self._shown_s = now
            self._phase = phase

    def _warn(self) -> None:
        """Print what the services warn of; above the panel, where there is one."""
        for said in self._warnings.read():
            warn(self._console, said)

    def _fields(self) -> dict[str, Any]:
        """The line's figures, for JSON."""
        names = ("step", "pass_rate", "mean_lag_steps", "ess_ratio")
        return {name: self._step.get(name) for name in names} if self._step else {}

    def _read(self, now: float) -> bool:
        """Take in new rows; returns whether there was an evaluation."""
        for row in self._steps.rows():
            self._step = row
            self._stepped_s = now
            self._paces.append((row["step"], row["at_unix_s"]))
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
            (
                "pass rate",
                f"{number(step['pass_rate'], 2)}  {sparkline(self._pass_rates, 32, bars_for(self._console))}",
            ),
            (
                "held-out accuracy",
                "  ".join(f"{number(accuracy)} @{version}" for version, accuracy in self._evaluated[-4:]) or "-",
            ),
            ("lag", f"{number(step['mean_lag_steps'], 2)} steps (at most {count(step['max_lag_steps'])})"),
            ("ESS ratio", f"{number(step['ess_ratio'])}  (learning rate x {number(step['lr_factor'], 2)})"),
            ("groups", group_counts(step["groups"])),
        ]
        if sources := step.get("sources"):
            facts.append(("sources", source_counts(sources)))
        if self._fleet and (talks := self._fleet.talks):
            facts.append(("conversations", talks.said()))
        if waiting := self._groups():
            facts.append((f"step {waiting.step} waits", waiting.said()))
        if self._first_step and now > self._first_step[0] + 1:
            rate = (step["sampled_trajectories"] - self._first_step[1]) / (now - self._first_step[0])
            facts.append(("sampled", f"{count(rate)} trajectories/s"))
        return facts

    def _is_slow(self, now: float) -> bool:
        """Whether the last step is long ago."""
        return now - self._stepped_s > SLOW_S

    def _panel(self, now: float) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for name, value in self._facts(now):
            table.add_row(Text(name, style="dim"), Text(value))
        step, steps = (self._step or {}).get("step", 0), self._config.learner.steps
        left_s = self._left_s()
        title = f"{self._config.name}: step {step} of {steps}, {duration(now - self._start_s)}"
        title += f", about {duration(left_s)} left" if left_s is not None else ""
        bar = Table.grid(expand=True)  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=steps, completed=step, complete_style="green", finished_style="green"))
        parts: list[RenderableType] = [bar, table]
        if self._fleet and (views := self._fleet.views):
            parts.append(self._replicas(views))
        return Panel(Group(*parts), title=Text(title), title_align="left")

    def _left_s(self) -> float | None:
        """How long the steps that are left take at the pace of the last ones; None before there is a pace, or at the end."""
        if len(self._paces) < 2:
            return None
        (first, began_s), (last, ended_s) = self._paces[0], self._paces[-1]
        if last <= first or last >= self._config.learner.steps:
            return None
        return (self._config.learner.steps - last) * (ended_s - began_s) / (last - first)

    @staticmethod
    def _replicas(views: Sequence[ReplicaView]) -> Table:
        """A line for each replica: its name, policy version, state and what it has in flight."""
        table = Table.grid(padding=(0, 2))
        for view in views[:REPLICAS_SHOWN]:
            name, version, state, in_flight, rate, _, _ = cells(view)
            alive = view.policy_version is not None
            rest = (f"version {version}", state, f"{in_flight} in flight", f"{rate} tokens/s") if alive else ("", state)
            table.add_row(Text(name, style="dim"), *rest, style=None if alive else "red")
        if len(views) > REPLICAS_SHOWN:
            table.add_row(Text("", style="dim"), f"and {len(views) - REPLICAS_SHOWN} more")
        return table

    def _line(self, now: float) -> str:
        facts = [f"{count(now - self._start_s):>4} s"]
        if self._step is None:
            return f"{facts[0]}  waiting for {self._waiting_for()}"
        step = self._step
        left_s = self._left_s()
        left = f" ({duration(left_s)} left)" if left_s is not None else ""
        facts.append(f"step {step['step']}/{self._config.learner.steps}{left}")
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


def group_counts(groups: dict[str, Any]) -> str:
    """A step's `groups`, in words."""
    dropped = sum(groups["dropped"].values())
    parts = {
        "trained": groups["trained"],
        "dropped": dropped,
        "dead": groups["dead"],
        "outstanding": groups["outstanding"],
    }
    return ", ".join(f"{count(value)} {name}" for name, value in parts.items())


def source_counts(sources: dict[str, Any]) -> str:
    """A step's `sources`, in words: the pass rate of each and its share of the prompts."""
    shown = [
        f"{name} {number(one['pass_rate'] if one['sequences'] else None, 2)} (share {number(one['share'], 2)})"
        for name, one in list(sources.items())[:SOURCES_SHOWN]
    ]
    return "  ".join([*shown, *([f"and {len(sources) - SOURCES_SHOWN} more"] if len(sources) > SOURCES_SHOWN else [])])
