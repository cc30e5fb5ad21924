"""The commands that look at runs: status, top, why, audit, report, compare. They read folders and ask services, and change
nothing."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from services import entry
from services.command.shown import terminal
from services.errors import InputError

Command = Callable[[str, str], argparse.ArgumentParser]
EVERY_S = 2.0


def add_commands(command: Command) -> None:
    """Add them. command: makes the parser of one from its name and what it does."""
    status = command("status", "say where a run stands, what stops or limits it, and what would balance it")
    status.add_argument("folder", type=Path, help="the run's folder, such as runs/addition")
    status.add_argument("--watch", action="store_true", help=f"again every {EVERY_S:.0f} s, until Ctrl-C")
    status.set_defaults(run=_status)

    top = command("top", "show the replicas of a run: version, state, sequences, tokens/s, idle share, last weights")
    top.add_argument("folder", type=Path, help="the run's folder, such as runs/addition")
    top.add_argument("--once", action="store_true", help="print the table once (default where this is not a terminal)")
    top.set_defaults(run=_top)

    why = command("why", "say what stops or limits a run, the worst first")
    why.add_argument("folder", type=Path, help="the run's folder, such as runs/addition")
    why.set_defaults(run=_why)

    audit = command("audit", "account for every group of a run; ends with 4 if one is lost, doubled or skipped")
    audit.add_argument("folder", type=Path, help="the run's folder, such as runs/addition")
    audit.add_argument("--groups", action="store_true", help="say what became of each group")
    audit.add_argument("--json", action="store_true", help="print JSON instead of text")
    audit.set_defaults(run=_audit)

    report = command("report", "say what a run came to, also before its end")
    report.add_argument("folder", type=Path, help="the run's folder, such as runs/addition")
    _add_outputs(report)
    report.set_defaults(run=_report)

    compare = command("compare", "say in what the settings of runs differ, and what they came to")
    compare.add_argument("folders", type=Path, nargs="+", help="the runs' folders, such as runs/a runs/b")
    compare.add_argument(
        "--threshold",
        type=float,
        action="append",
        metavar="ACCURACY",
        help="say when each run got there; may be repeated",
    )
    compare.add_argument("--png", type=Path, metavar="FILE", help="write the curves as a picture")
    _add_outputs(compare)
    compare.set_defaults(run=_compare)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write one page with pictures that needs nothing else"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _status(arguments: argparse.Namespace) -> int:
    from services.command import status
    from services.command.balance import IdleWatch
    from services.command.watch import watch

    seen = IdleWatch()

    def look() -> RenderableType:
        return status.for_terminal(status.describe(arguments.folder, seen))

    console = terminal()
    if arguments.watch:
        watch(look, console, EVERY_S)
    elif console.is_terminal:
        console.print(status.for_terminal(status.describe(arguments.folder)))
    else:
        print(status.describe(arguments.folder))
    return entry.DONE


def _top(arguments: argparse.Namespace) -> int:
    from services.clock import sleep
    from services.command.fleet import SHORTEST_S, Fleet, fleet_table
    from services.command.watch import watch
    from services.run.history import open_run

    config, folder = open_run(arguments.folder)
    fleet, console = Fleet(folder), terminal()

    def look() -> RenderableType:
        views = fleet.look()
        return fleet_table(views) if views else Text(f"no replica of {config.name} has announced its address")

    look()  # rates are of the time between two looks
    if arguments.once or not console.is_terminal:
        sleep(2 * SHORTEST_S)
        console.print(look())
        return entry.DONE
    watch(look, console, EVERY_S)
    return entry.DONE


def _why(arguments: argparse.Namespace) -> int:
    from services.command.diagnosis import reasons
    from services.command.facts import gather

    found = reasons(gather(arguments.folder))
    for at, reason in enumerate(found, start=1):
        print(
            "\n".join([f"{at}. {reason.what}", *(f"   {line}" for line in (*reason.more.splitlines(), reason.action))])
        )
    if not found:
        print("nothing is known to stop or limit it")
    return entry.DONE


def _audit(arguments: argparse.Namespace) -> int:
    from services.command import audit

    found = audit.audited(arguments.folder)
    say = audit.as_json if arguments.json else audit.said
    print(say(found, each=arguments.groups))
    return entry.DONE if found.is_clean else entry.UNACCOUNTED


def _report(arguments: argparse.Namespace) -> int:
    from services.command import html_page, report
    from services.run.history import read_history

    history = read_history(arguments.folder)
    if arguments.html is not None:
        html_page.write(arguments.html, report.html(history))
    if arguments.json:
        print(json.dumps(report.as_json(history), indent=2, default=str))
    elif arguments.html is None:
        report.show(history.folder, dict(history.summary), terminal())
    return entry.DONE


def _compare(arguments: argparse.Namespace) -> int:
    from services.command import compare, figures, html_page

    thresholds = sorted(set(arguments.threshold or compare.THRESHOLDS))
    if any(not 0 < one <= 1 for one in thresholds):
        raise InputError(f"--threshold {min(thresholds):g} is not an accuracy; give numbers above 0 and at most 1")
    histories = compare.read(arguments.folders)
    found = compare.compare(histories, thresholds)
    if arguments.html is not None:
        html_page.write(arguments.html, compare.html(histories, found))
    if arguments.png is not None:
        figures.png(figures.curves(histories), arguments.png)
    if arguments.json:
        print(json.dumps(found, indent=2, default=str))
    elif arguments.html is None and arguments.png is None:
        compare.show(histories, found, terminal())
    return entry.DONE
