"""What the live page costs: 64 simulated replicas, one browser that asks once a second, and a run that takes a step a second.

    python -m benchmarks.page [--replicas 64] [--seconds 60] [--json out.json]

Replicas are leases on a real Redis server and health servers with an engine's metrics; the page is the real process, and its
processor time is read from /proc. The baseline beside it is the same process while nobody looks. Also measured: bytes of all
that a browser fetches first, the time from the request to the last of them, and where Chromium is installed, how long after the
request it has painted first (its own figure, without a cache).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import websockets.sync.client
from rich.console import Console
from rich.table import Table

from services.command.redis_server import RedisServer
from services.command.rooms import PAGE, python_module
from services.command.run_processes import write_settings
from services.config.load import load
from services.page.access import token_of
from services.page.listening import address, listen
from services.run.addresses import announce_address
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.streams.redis_connection import RedisConnection
from services.weights.membership import Membership
from services.wire.membership import Lease

ROOT = Path(__file__).parent.parent
ENGINE_LINES = 400
"""Lines of an engine's own metrics beside ours; vLLM has about as many."""
LOADED = (
    "",
    "assets/page.css",
    "assets/page.js",
    "assets/curves.js",
    "assets/inspector.js",
    "assets/icon.svg",
    "api/state",
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PAINTED = "(performance.getEntriesByName('first-contentful-paint')[0] || {startTime: 0}).startTime"
"""What Chromium says of the page: milliseconds from the request to the first paint with something in it; 0: not yet."""


class Replica(BaseHTTPRequestHandler):
    """/metrics of one replica."""

    def do_GET(self) -> None:
        tokens = int(time.monotonic() * 1000)
        own = f"ratchet_rollout_sampled_tokens_total {tokens}\nratchet_rollout_running_sequences 64\n"
        own += 'ratchet_wait_seconds_total{room="rollout",awaiting="prompts"} 3.5\n'
        engine = "".join(f'vllm:request_seconds_bucket{{model_name="m",le="{i}"}} {i}\n' for i in range(ENGINE_LINES))
        body = (engine + own).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def processor_s(pid: int) -> float:
    """Seconds of processor time that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def step_row(step: int) -> dict[str, Any]:
    """As the learner writes it, with the figures that the page shows and as many others."""
    shown = {
        "pass_rate": 0.5,
        "mean_reward": 0.5,
        "entropy": 1.2,
        "ess_ratio": 0.9,
        "mean_lag_steps": 1.0,
        "max_lag_steps": 2,
    }
    shown |= {"tokens": 1000, "seconds": 0.5, "waited_s": 0.5, "sampled_tokens": step * 1000}
    groups = {"issued": 9, "trained": 4, "dropped": {}, "dead": 0, "outstanding": 5}
    return {"step": step, "attempt": 1, **shown, "groups": groups, **{f"figure_{i}": 0.123456 for i in range(40)}}


def measure(replicas: int, seconds: float) -> dict[str, float]:
    """Costs of the page with this many replicas."""
    with tempfile.TemporaryDirectory() as scratch, RedisServer(Path(scratch) / "redis") as server:
        example = ROOT / "examples/addition/addition.toml"
        config = load(example, [f"runs_folder={scratch}/runs", "learner.steps=100000"])
        folder = RunFolder(config.folder)
        folder.path.mkdir(parents=True)
        write_settings(config, folder)
        folder.redis_url.write_text(server.url, encoding="utf-8")
        metrics = ThreadingHTTPServer(("127.0.0.1", 0), Replica)
        threading.Thread(target=metrics.serve_forever, daemon=True).start()
        membership = Membership(RedisConnection(server.url), config.name, lease_s=3600.0)
        for number in range(replicas):
            name = f"rollout-{number}"
            announce_address(folder.services, name, f"http://127.0.0.1:{metrics.server_address[1]}")
            lease = Lease(
                replica_id=name, incarnation="a", ranks=1, policy_version=9, ready=True, sampling_s=1.0, ready_s=2.0
            )
            membership.register(lease)
        with JsonLines(folder.steps) as lines:
            for step in range(1, 1001):
                lines.write(**step_row(step))
            return _page(folder, lines, seconds)


def first_paint_s(url: str) -> float:
    """Seconds from the request for this page to its first paint, in a Chromium that has never seen it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as chromium:
            try:
                assert chromium.stderr is not None
                listening = next(found for line in chromium.stderr if (found := re.search(r"ws://([^/]+)/", line)))
                time.sleep(2.0)  # it is up, and busy with itself
                opened = httpx.put(f"http://{listening[1]}/json/new?{url}", trust_env=False).json()
                time.sleep(3.0)
                with websockets.sync.client.connect(opened["webSocketDebuggerUrl"], proxy=None) as page:
                    page.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": {"expression": PAINTED}}))
                    answer = json.loads(page.recv(timeout=10.0))
            finally:
                chromium.terminate()
        painted_ms: float = answer["result"]["result"]["value"]
        assert painted_ms, "it has painted nothing in three seconds"
        return painted_ms / 1000


def _page(folder: RunFolder, lines: JsonLines, seconds: float) -> dict[str, float]:
    listener = listen("127.0.0.1", 0)
    token = token_of(folder.page_token)
    command = python_module(PAGE, str(folder.path), "--socket", str(listener.fileno()))
    page = subprocess.Popen(command, pass_fds=[listener.fileno()], cwd=ROOT)
    found: dict[str, float] = {}
    try:
        with httpx.Client(timeout=60.0, follow_redirects=True, trust_env=False) as browser:
            base = address(listener, token).partition("?")[0]
            browser.get(address(listener, token))  # the process has started
            browser.get(f"{base}api/state")
            time.sleep(3.0)  # and looked once
            began = time.perf_counter()
            found["first_bytes"] = sum(len(browser.get(f"{base}{path}").content) for path in LOADED)
            found["first_seconds"] = time.perf_counter() - began
            if CHROMIUM is not None:
                found["paint_seconds"] = first_paint_s(address(listener, token))
            step, since, revision, sizes = 1000, 1000, 0, []
            used, began = processor_s(page.pid), time.perf_counter()
            while time.perf_counter() - began < seconds:
                step += 1
                lines.write(**step_row(step))
                answer = browser.get(f"{base}api/state", params={"since": since, "revision": revision})
                sizes.append(len(answer.content))
                fresh = answer.json()["steps"]
                since, revision = [since, *fresh["columns"]["step"]][-1], fresh["revision"]
                time.sleep(1.0)
            found["watched_core"] = (processor_s(page.pid) - used) / (time.perf_counter() - began)
            found["poll_bytes"] = sum(sizes) / len(sizes)
            time.sleep(12.0)  # until nobody looks
            used, began = processor_s(page.pid), time.perf_counter()
            time.sleep(10.0)
            found["idle_core"] = (processor_s(page.pid) - used) / (time.perf_counter() - began)
    finally:
        page.terminate()
        page.wait()
        listener.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = {count: measure(count, arguments.seconds) for count in sorted({1, arguments.replicas})}
    table = Table("replicas", "a browser looks", "nobody looks", "first load", "in", "painted after", "each poll")
    for count, row in rows.items():
        table.add_row(
            str(count),
            f"{row['watched_core']:.2%} of a core",
            f"{row['idle_core']:.2%}",
            f"{row['first_bytes'] / 1000:.0f} kB",
            f"{row['first_seconds'] * 1000:.0f} ms",
            f"{row['paint_seconds'] * 1000:.0f} ms" if "paint_seconds" in row else "no Chromium",
            f"{row['poll_bytes'] / 1000:.1f} kB",
        )
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
