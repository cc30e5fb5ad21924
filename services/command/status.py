"""`ratchet status`: where a run stands, from its files and, while it runs, its streams and leases."""

import textwrap
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from services.clock import sleep
from services.command.balance import Admitted, IdleWatch
from services.command.diagnosis import Facts, reasons
from services.command.facts import gather, url_of
from services.command.live_display import group_counts
from services.command.scrape import scrape
from services.errors import RatchetError
from services.numbers import count, number
from services.run.addresses import addresses
from services.run.best_checkpoint import best_checkpoints
from services.run.folder import RunFolder
from services.run.history import open_run
from services.run.json_lines import read_json_lines
from services.run.summary import newest
from services.run.waiting import read_waiting
from services.streams.names import DEAD, EVALUATION_PROMPTS, PROMPTS, SCORED, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream
from services.weights.membership import Membership

LOOK_S = 2.0
"""Between the two looks that say how idle a run is, where there are none from before."""


def describe(path: Path, watch: IdleWatch | None = None) -> str:
    """Where the run in this folder stands, in lines of text. Raises InputError if there is no run in it.

    watch: the looks before this one, so that what is said of idle time is of more than a moment.
    """
    config, folder = open_run(path)
    facts = gather(path)
    lines = [f"run {config.name} in {path}"]
    steps = newest(read_json_lines(folder.steps), "step")
    if steps:
        last = steps[-1]
        lines.append(
            f"  step {last['step']} of {config.learner.steps}: pass rate {number(last['pass_rate'])}, "
            f"ESS ratio {number(last['ess_ratio'])}, lag {number(last['mean_lag_steps'], 2)} steps"
        )
        lines.append(f"  groups: {group_counts(last['groups'])}")
    if (waiting := read_waiting(folder.waiting)) and waiting.step > (steps[-1]["step"] if steps else 0):
        lines.append(f"  step {waiting.step} waits for groups: {waiting.said()}")
    for evaluation in newest(read_json_lines(folder.evaluations), "policy_version"):
        lines.append(
            f"  held-out at version {evaluation['policy_version']}: avg@{evaluation['k']} {number(evaluation['avg_at_k'], 4)}, "
            f"pass@{evaluation['k']} {number(evaluation['pass_at_k'], 4)}"
            + "".join(f", {name} {number(own['avg_at_k'], 4)}" for name, own in evaluation.get("sources", {}).items())
        )
    metric = config.learner.checkpoint.best_by
    for best in best_checkpoints(folder, metric)[:1]:
        lines.append(f"  best checkpoint: {best.checkpoint.name}, {metric} {number(best.accuracy, 4)}")
    url = url_of(config, folder)
    lines += ["  not running"] if url is None else _live(url, config.name, folder)
    if any(facts.announced.values()):
        admitted = Admitted(config.learner.groups_per_step, config.learner.max_lag)
        balanced = _looked(folder, facts, watch).said(admitted, facts.steps)
        lines += [f"  {balanced}"] if balanced else []
    lines += [f"  {reason.what}" for reason in reasons(facts)[:1]]
    return "\n".join(lines)


def for_terminal(described: str) -> RenderableType:
    """The lines, with those that are too long for the terminal going on further in than they began."""
    texts = []
    for line in described.splitlines():
        text = line.lstrip()
        began = len(line) - len(text)
        texts.append(_Hanging(text, began, began + 2))
    return Group(*texts)


class _Hanging:
    """A line that begins in one column and goes on in another."""

    def __init__(self, text: str, first: int, rest: int) -> None:
        self._text = text
        self._first = " " * first
        self._rest = " " * rest

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = textwrap.wrap(
            self._text,
            max(options.max_width, 2 * len(self._rest) + 1),
            initial_indent=self._first,
            subsequent_indent=self._rest,
            break_on_hyphens=False,
        )
        yield Text("\n".join(lines) or "")


def _looked(folder: RunFolder, facts: Facts, watch: IdleWatch | None) -> IdleWatch:
    """The looks so far and this one; at least two.

    Waits for: time to pass, where there was no look before.
    Until: 2 s (LOOK_S).
    Ended by: the time.
    Metric: none; a command serves none.
    """
    if watch is not None:
        watch.take(facts.announced)
        return watch
    both = IdleWatch()
    both.take(facts.announced)
    sleep(LOOK_S)
    both.take(scrape(addresses(folder.services)))
    return both


def _live(url: str, run: str, folder: RunFolder) -> list[str]:
    """What the streams, the replicas and the services of a running run say.

    Waits for: the run's Redis server.
    Until: 3 s for each command.
    Ended by: its answer, or the deadline, which becomes a line of the result.
    Metric: none; `ratchet status` serves none.
    """
    connection = RedisConnection(url, deadline_s=3.0)
    try:
        connection.check()
        lines = []
        for name in (EVALUATION_PROMPTS, PROMPTS, TRAJECTORIES, SCORED, DEAD):
            depth = RedisStream(connection, run, name, "status", 1e8).depth()
            until = " until a checkpoint holds them" if name == SCORED and depth.pending else ""
            lines.append(f"  stream {name}: {count(depth.waiting)} waiting, {count(depth.pending)} claimed{until}")
        for replica in Membership(connection, run, lease_s=15.0).live().values():
            state = "ready" if replica.ready else "not ready"
            lines.append(f"  replica {replica.replica_id}: {state}, policy version {replica.policy_version}")
        lines += [f"  {service} at {address}" for service, address in addresses(folder.services).items()]
        return lines
    except RatchetError as fault:
        return [f"  cannot ask its Redis server: {fault}"]
    finally:
        connection.close()
