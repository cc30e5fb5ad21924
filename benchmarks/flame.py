"""Where a service's processor time goes, as a picture: the stacks of its busiest thread while the end-to-end benchmark runs.

    python -m benchmarks.flame rollout learner --before OTHER_WORKTREE --out .bench/flame

`ratchet up` of benchmarks/end_to_end/ratchet.toml; once it has taken ten steps, py-spy (the extra `pictures`) looks at one room
after the other, some hundred times a second. --before: another checkout of the project with its own .venv, measured first, so
that both pictures are of one machine and one hour. The top row is the thread; below each function stand those that it called, as
wide as their share. Stacks of one function at different lines are one. What has less than 0.4 % is left out.
"""

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.machine import machine
from services.clock import Deadline

ROOT = Path(__file__).resolve().parents[1]
RUN_FILE = "benchmarks/end_to_end/ratchet.toml"
THREADS = {"rollout": "engine", "learner": "MainThread"}
"""Room -> the thread that computes."""
WARM_UP_STEPS = 10
START_S = 120.0
RATE = 200  # looks a second
LEAST_SHARE = 0.004
WIDTH, ROW, CHARACTER, CAPTION = 1200, 17, 6.3, 40  # pixels
COLORS = {"vllm/": "#9cc5e8", "torch/": "#a8d5a2", "deepspeed/": "#d3b5e5", "transformers/": "#e5d28f"}
OURS, OTHERS = "#f2a66b", "#d9d9d9"


@dataclass
class Frame:
    """A function and what it called."""

    name: str
    count: int = 0
    calls: "dict[str, Frame]" = field(default_factory=dict)


def tree(stacks: Iterable[str], thread: str) -> Frame:
    """What one thread did. stacks: lines as py-spy writes them in its format raw, with threads.

    Raises SystemExit where there is no such thread.
    """
    root = Frame(thread)
    for line in stacks:
        stack, _, count = line.rstrip().rpartition(" ")
        whose, *functions = stack.split(";")
        if not whose.endswith(f": {thread}"):
            continue
        frame = root
        frame.count += int(count)
        for function in map(without_line, functions):
            frame = frame.calls.setdefault(function, Frame(function))
            frame.count += int(count)
    if not root.count:
        raise SystemExit(f"no stack of a thread named {thread}")
    return root


def without_line(function: str) -> str:
    """`step (vllm/engine.py:12)` -> `step (vllm/engine.py)`."""
    name, colon, line = function.rpartition(":")
    return f"{name})" if colon and line.rstrip(")").isdigit() else function


def color(function: str) -> str:
    place = function.rpartition("(")[2]
    for start, one in COLORS.items():
        if place.startswith(start):
            return one
    return OURS if place.startswith(("rollout/", "learner/", "services/", "verifier/")) else OTHERS


def picture(root: Frame, caption: str) -> str:
    """An SVG."""
    boxes: list[str] = []
    deepest = 0

    def draw(frame: Frame, left: float, depth: int) -> None:
        nonlocal deepest
        width = WIDTH * frame.count / root.count
        if frame.count < LEAST_SHARE * root.count:
            return
        deepest = max(deepest, depth)
        top = CAPTION + depth * ROW
        share = f"{frame.name}: {100 * frame.count / root.count:.1f} %"
        room = int((width - 4) / CHARACTER)
        shown = frame.name.partition(" (")[0]
        text = shown if len(shown) <= room else shown[: room - 1] + "…" if room >= 4 else ""
        boxes.append(
            f'<g><title>{escape(share)}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 1}" '
            f'fill="{color(frame.name)}"/>'
            + (f'<text x="{left + 2:.1f}" y="{top + 12}">{escape(text)}</text>' if text else "")
            + "</g>"
        )
        for called in sorted(frame.calls.values(), key=lambda one: one.name):
            draw(called, left, depth + 1)
            left += WIDTH * called.count / root.count

    draw(root, 0.0, 0)
    height = CAPTION + (deepest + 1) * ROW + 4
    legend = " · ".join(["orange: Ratchet", "blue: vLLM", "green: torch", "violet: DeepSpeed", "yellow: transformers"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="10">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
        f'<text x="4" y="14" font-size="12">{escape(caption)}</text>\n<text x="4" y="30">{legend}</text>\n'
        + "\n".join(boxes)
        + "\n</svg>\n"
    )


def shares(root: Frame, least: float = 0.03) -> list[tuple[str, float]]:
    """Function -> its share without what it called, largest first."""
    alone: dict[str, int] = {}

    def count(frame: Frame) -> None:
        alone[frame.name] = alone.get(frame.name, 0) + frame.count - sum(one.count for one in frame.calls.values())
        for one in frame.calls.values():
            count(one)

    count(root)
    found = [(name, one / root.count) for name, one in alone.items() if one >= least * root.count]
    return sorted(found, key=lambda pair: -pair[1])


def record(checkout: Path, rooms: Iterable[str], seconds: int, out: Path) -> dict[str, Path]:
    """Room -> the stacks, recorded while the benchmark runs in this checkout."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    stacks: dict[str, Path] = {}
    with running(checkout, out) as up:
        for room in rooms:
            stacks[room] = out / f"{room}.stacks"
            look = ["record", "--pid", str(service(up.pid, room)), "--duration", str(seconds), "--rate", str(RATE)]
            shape = ["--threads", "--format", "raw", "--output", str(stacks[room])]
            said = subprocess.run(
                [Path(sys.executable).parent / "py-spy", *look, *shape], capture_output=True, text=True, check=False
            )
            if said.returncode != 0:
                raise SystemExit(f"py-spy saw nothing of the {room}: {said.stderr.strip()}")
    return stacks


@contextlib.contextmanager
def running(checkout: Path, out: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """The benchmark's run, from its tenth step on, until it is asked to stop."""
    command = [str(checkout / ".venv/bin/ratchet"), "up", RUN_FILE]
    for setting in (f"runs_folder={out / 'runs'}", "learner.steps=100000", "learner.checkpoint.every_steps=100000"):
        command += ["--set", setting]
    with (out / "ratchet.log").open("wb") as log:
        up = subprocess.Popen(command, cwd=checkout, stdout=log, stderr=subprocess.STDOUT)
        try:
            steps, deadline = (
                out / "runs/end-to-end/steps.jsonl",
                Deadline.after(START_S, "the benchmark's first steps"),
            )
            while not steps.exists() or steps.read_text(encoding="utf-8").count("\n") < WARM_UP_STEPS:
                if up.poll() is not None:
                    raise SystemExit(f"ratchet up ended with {up.returncode}; see {out / 'ratchet.log'}")
                time.sleep(min(0.5, deadline.remaining_s()))
            yield up
        finally:
            up.send_signal(signal.SIGINT)
            up.wait()


def service(up: int, room: str) -> int:
    """The process of a room. up: that of `ratchet up`, which started it."""
    children = Path(f"/proc/{up}/task/{up}/children").read_text(encoding="utf-8").split()
    for child in children:
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if room.encode() in words:
            return int(child)
    raise SystemExit(f"no {room} among the processes {children} of ratchet up")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flame", description=(__doc__ or "").split("\n\n", maxsplit=1)[0]
    )
    parser.add_argument("rooms", nargs="+", choices=list(THREADS))
    parser.add_argument("--seconds", type=int, default=20, help="for each room")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout, to compare with")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    checkouts = {"now": ROOT} if options.before is None else {"before": options.before.resolve(), "now": ROOT}
    on = machine(["torch", "vllm"])
    where = f"{on['processor']}, {on['cores']} cores, {time.strftime('%Y-%m-%d')}"
    for when, checkout in checkouts.items():
        for room, stacks in record(checkout, options.rooms, options.seconds, options.out.resolve() / when).items():
            root = tree(stacks.read_text(encoding="utf-8").splitlines(), THREADS[room])
            name = f"{when}-{room}"
            caption = f"{name}: thread {THREADS[room]}, end-to-end benchmark; {where}"
            (options.out / f"{name}.svg").write_text(picture(root, caption), encoding="utf-8")
            print(f"{name}: {root.count} looks\n" + "\n".join(f"  {share:.3f} {what}" for what, share in shares(root)))
    (options.out / "machine.json").write_text(json.dumps(on, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
