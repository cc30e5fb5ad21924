"""How long a user waits, after a mistake, for the sentence that names its cause.

    python -m benchmarks.mistakes                     # this checkout
    python -m benchmarks.mistakes --before ../before  # another one first, which has a .venv of its own

Each of ten mistakes is made in a small run of the bundled model: `ratchet up` is started in a folder of its own, its terminal is
read, and the seconds until the sentence are taken; then the run is stopped. A run that has not said it by the limit, or that
ends without having said it, is noted as such. Prints a table and writes JSON, with the load that the machine had.
"""

import argparse
import contextlib
import http.server
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from benchmarks.machine import machine
from services.command.redis_server import RedisServer
from services.run.json_text import json_text

ROOT = Path(__file__).resolve().parents[1]
ROWS = 300
BAD_ROW = 200
STOP_S = 30.0
RUN = """
name = "mistake"
device = "cpu"
runs_folder = "runs"
model = { path = "model", max_length = 10, dtype = "float32" }
prompts = { source = { type = "jsonl", path = "train.jsonl" }, grader = "number", template = "none" }
rollout = { kv_cache_gib = 0.2, sampling = { max_tokens = 4, group_size = 8 } }
weights = { type = "gloo", bucket_mib = 4, probe_tokens = 8 }

[learner]
steps = 2
groups_per_step = 4
row_tokens = 10
rows_per_micro_batch = 512
zero_variance = "train"
"""
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Trial:
    """One `ratchet up`: the folder that it is started in, the executable, and how long it may take."""

    folder: Path
    ratchet: Path
    limit_s: float


@dataclass(frozen=True)
class Mistake:
    """What the user does wrong, and how the sentence that names the cause is known."""

    name: str
    sentence: str
    """A regular expression that finds it on the terminal."""
    make: Callable[[Trial], contextlib.AbstractContextManager[Sequence[str]]]
    """Makes the mistake in the trial's folder; gives what `ratchet up` gets besides the run file, and holds it for that long."""


@dataclass(frozen=True)
class Wait:
    """What one trial came to."""

    mistake: str
    checkout: str
    seconds: float | None
    """Until the sentence; None where it did not come."""
    outcome: str
    load_1_min: float


def waited(mistake: Mistake, checkout: Path, limit_s: float) -> Wait:
    """Make the mistake with the `ratchet` of a checkout, and wait for the sentence."""
    with tempfile.TemporaryDirectory(prefix="ratchet-mistake-") as made:
        folder = Path(made)
        shutil.copytree(ROOT / "examples" / "addition" / "model", folder / "model")
        (folder / "run.toml").write_text(RUN, encoding="utf-8")
        write_rows(folder, good_rows())
        trial = Trial(folder, checkout / ".venv" / "bin" / "ratchet", limit_s)
        load = round(os.getloadavg()[0], 1)
        with mistake.make(trial) as options:
            seconds, outcome = until_said(trial, options, mistake.sentence)
    return Wait(mistake.name, checkout.name, seconds, outcome, load)


def until_said(trial: Trial, options: Sequence[str], sentence: str) -> tuple[float | None, str]:
    """Seconds until the terminal has the sentence, and that sentence; or None, and how it ended instead.

    Waits for: what `ratchet up` prints.
    Until: trial.limit_s.
    Ended by: the sentence, the end of the command, or the deadline.
    Metric: none; it is a benchmark.
    """
    start_s = time.monotonic()
    process = subprocess.Popen(
        [trial.ratchet, "up", "run.toml", *options],
        cwd=trial.folder,
        env={**os.environ, "COLUMNS": "1000"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: queue.Queue[str | None] = queue.Queue()
    last = ""
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    try:
        while (left_s := start_s + trial.limit_s - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=min(left_s, 1.0))
                if line is None:
                    code, took_s = process.wait(), time.monotonic() - start_s
                    return (
                        None,
                        f"ended with code {code} after {took_s:.0f} s, without it; the last line was: {last[:200]}",
                    )
                last = line.strip() or last
                if re.search(sentence, line):
                    return round(time.monotonic() - start_s, 1), last[:200]
        return None, f"not within {trial.limit_s:.0f} s"
    finally:
        _stop(process)


def _read(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _stop(process: "subprocess.Popen[str]") -> None:
    """End `ratchet up` in order; its services end with it, also when it has to be killed.

    Waits for: the command to end.
    Until: 30 s (STOP_S); then it is killed.
    Ended by: its end, or the deadline.
    Metric: none; it is a benchmark.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def good_rows() -> Rows:
    """Sums of two numbers of two digits, as the bundled model reads them."""
    pairs = [(10 + number % 90, 10 + (7 * number) % 90) for number in range(ROWS)]
    return [{"prompt": f"{a}+{b}=", "reference": str(a + b)[::-1]} for a, b in pairs]


def write_rows(folder: Path, rows: Rows) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def changed(file: Path, change: Callable[[Any], object]) -> None:
    """Let `change` alter the JSON of a file in place."""
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def setting(*options: str) -> Callable[[Trial], contextlib.AbstractContextManager[Sequence[str]]]:
    """The mistake is in the settings alone."""
    given = [part for option in options for part in ("--set", option)]
    return lambda trial: contextlib.nullcontext(given)


@contextlib.contextmanager
def web_server(trial: Trial) -> Iterator[Sequence[str]]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield ["--set", f"redis.url=redis://127.0.0.1:{server.server_port}/0"]
        finally:
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextlib.contextmanager
def unknown_database(trial: Trial) -> Iterator[Sequence[str]]:
    with RedisServer(trial.folder / "redis") as server:
        server.start()
        yield ["--set", f"redis.url={server.url}?db=99"]


@contextlib.contextmanager
def token_without_a_row(trial: Trial) -> Iterator[Sequence[str]]:
    added = [
        {"id": number, "content": letter, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for number, letter in ((15, "y"), (16, "z"))  # the tokenizer ends at 14, the model's rows at 15
    ]
    changed(
        trial.folder / "model" / "tokenizer.json",
        lambda tokenizer: tokenizer["added_tokens"].extend({**one, "special": False} for one in added),
    )
    rows = good_rows()
    write_rows(trial.folder, [{**row, "prompt": "z" + row["prompt"][1:]} for row in rows])
    yield []


@contextlib.contextmanager
def one_bad_row(trial: Trial, row: dict[str, str]) -> Iterator[Sequence[str]]:
    rows = good_rows()
    rows[BAD_ROW] |= row
    write_rows(trial.folder, rows)
    yield []


@contextlib.contextmanager
def another_model(trial: Trial) -> Iterator[Sequence[str]]:
    """A run of one step comes first, under the same name; it is not part of the seconds."""
    seconds, outcome = until_said(
        Trial(trial.folder, trial.ratchet, 240.0), ["--set", "learner.steps=1"], r"trained model\s"
    )
    if seconds is None:
        raise SystemExit(f"the run that comes first {outcome}")
    time.sleep(2.0)  # its processes end
    shutil.copytree(trial.folder / "model", trial.folder / "other")
    weights = load_file(trial.folder / "other" / "model.safetensors")
    save_file(
        {name: 1.01 * one for name, one in weights.items()},
        trial.folder / "other" / "model.safetensors",
        metadata={"format": "pt"},
    )
    yield ["--set", "model.path=./other"]


@contextlib.contextmanager
def unknown_architecture(trial: Trial) -> Iterator[Sequence[str]]:
    changed(
        trial.folder / "model" / "config.json", lambda config: config.update({"architectures": ["NobodyForCausalLM"]})
    )
    yield []


@contextlib.contextmanager
def unmatched_references(trial: Trial) -> Iterator[Sequence[str]]:
    write_rows(trial.folder, [{**row, "reference": "123456"} for row in good_rows()])
    yield ["--set", "learner.zero_variance=drop"]


MISTAKES = (
    Mistake("`rollout.sampling.temperature = 2.5`", r"temperature", setting("rollout.sampling.temperature=2.5")),
    Mistake("`redis.url` is that of a web server", r"(?i)no usable answer|http", web_server),
    Mistake("a token that the model has no row for", r"rows for \d+ ids|has no row for", token_without_a_row),
    Mistake(
        f"1 reference of {ROWS} that the grader cannot judge by",
        r"none of these",
        lambda trial: one_bad_row(trial, {"reference": "none of these"}),
    ),
    Mistake(
        f"1 prompt of {ROWS} that is too long",
        r"prompt has \d+ tokens",
        lambda trial: one_bad_row(trial, {"prompt": "1" * 40}),
    ),
    Mistake("a metrics host of another machine", r"metrics_host", setting("learner.metrics_host=203.0.113.9")),
    Mistake("`redis.url` with database 99", r"(?i)\b99\b.*(database|db)|db index|database.*99", unknown_database),
    Mistake("another model under the name of an earlier run", r"model\.path: ", another_model),
    Mistake("an architecture that vLLM does not know", r"NobodyForCausalLM", unknown_architecture),
    Mistake("references that no response matches", r"every reward was 0|equal rewards", unmatched_references),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout, measured before this one at each mistake")
    parser.add_argument(
        "--limit-s", type=float, default=300.0, help="seconds after which a run is stopped (default: 300)"
    )
    parser.add_argument("--before-limit-s", type=float, default=300.0, help="the same for the other checkout")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only mistakes in whose name this is found")
    parser.add_argument("--out", type=Path, default=Path(".bench/mistakes"))
    given = parser.parse_args()
    checkouts = [given.before.resolve()] if given.before else []
    checkouts.append(ROOT)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "mistakes.json"
    found: list[Wait] = []
    for mistake in MISTAKES:
        if re.search(given.only, mistake.name):
            for checkout in checkouts:
                limit_s = given.limit_s if checkout == ROOT else given.before_limit_s
                found.append(waited(mistake, checkout, limit_s))
                print(json.dumps(asdict(found[-1])), file=sys.stderr, flush=True)
            report = {"waits": [asdict(one) for one in found], "machine": machine(("ratchet", "vllm", "torch"))}
            path.write_text(json_text(report, indent=2) + "\n", encoding="utf-8")
    print(table(found, [checkout.name for checkout in checkouts]))
    print(f"written: {path}")


def table(found: Sequence[Wait], checkouts: Sequence[str]) -> str:
    """The waits in Markdown, a column a checkout."""
    lines = [f"| mistake | {' | '.join(checkouts)} |", "| --- |" + " --- |" * len(checkouts)]
    for name in dict.fromkeys(one.mistake for one in found):
        cells = [
            one.outcome if one.seconds is None else f"{one.seconds:.1f}"
            for checkout in checkouts
            for one in found
            if (one.mistake, one.checkout) == (name, checkout)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
