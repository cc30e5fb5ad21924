"""The replicas as /metrics shows them: rates between two looks, and a replica that does not answer."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from rich.console import Console

from services.command.fleet import Fleet, ReplicaView, fleet_table, replica_view
from services.command.scrape import Scrape, parse
from services.run.addresses import announce_address
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines

PAGE = """
# TYPE ratchet_rollout_policy_version gauge
ratchet_rollout_policy_version 7
# TYPE ratchet_rollout_ready gauge
ratchet_rollout_ready 1
# TYPE ratchet_rollout_running_sequences gauge
ratchet_rollout_running_sequences {running}
# TYPE ratchet_rollout_sampled_tokens counter
ratchet_rollout_sampled_tokens_total {tokens}
# TYPE ratchet_idle_seconds counter
ratchet_idle_seconds_total{{room="rollout"}} {idle}
# TYPE ratchet_busy_seconds counter
ratchet_busy_seconds_total{{room="rollout"}} {busy}
"""


def scraped(at_s: float, *, running: int = 8, tokens: int, idle: float) -> Scrape:
    values = parse(PAGE.format(running=running, tokens=tokens, idle=idle, busy=at_s - idle)).values
    return Scrape(at_s, 1000.0 + at_s, values)


def test_rates_are_of_the_time_between_two_looks() -> None:
    view = replica_view("rollout-0", scraped(14, tokens=900, idle=6), scraped(10, tokens=100, idle=5), {7: 1010.0})
    assert view == ReplicaView(
        "rollout-0", "sampling", policy_version=7, sequences=8, tokens_per_s=200.0, idle_ratio=0.25, weights_age_s=4.0
    )


def test_a_counter_that_began_again_is_not_a_negative_rate() -> None:
    view = replica_view("rollout-0", scraped(14, tokens=5, idle=0), scraped(10, tokens=900, idle=50), {})
    assert (view.tokens_per_s, view.idle_ratio, view.weights_age_s) == (0.0, 0.0, None)


def test_a_replica_without_sequences_waits() -> None:
    now = scraped(14, running=0, tokens=5, idle=0)
    assert replica_view("rollout-0", now, None, {}).state == "waits for prompts"
    assert replica_view("rollout-0", None, now, {}) == ReplicaView("rollout-0", "does not answer")


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGE.format(running=2, tokens=10, idle=0, busy=9).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_replicas_of_a_run_are_asked_at_the_addresses_that_they_announced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with JsonLines(folder.syncs) as lines:
        lines.write(attempt=1, policy_version=7)
    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        announce_address(folder.services, "rollout-0", f"http://127.0.0.1:{server.server_address[1]}")
        announce_address(folder.services, "rollout-1", "http://127.0.0.1:1")
        announce_address(folder.services, "learner", "http://127.0.0.1:1")
        there, gone = Fleet(folder).look()
        server.shutdown()
    assert (there.replica_id, there.policy_version, there.state) == ("rollout-0", 7, "sampling")
    assert there.weights_age_s is not None
    assert (gone.replica_id, gone.state) == ("rollout-1", "does not answer")
    console = Console(width=40, record=True)
    console.print(fleet_table([there, gone]))
    said = console.export_text()
    assert max(map(len, said.splitlines())) <= 40
