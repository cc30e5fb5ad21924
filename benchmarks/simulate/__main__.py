"""Simulate fleets of replicas and teams of learner ranks, and say what a sync of weights costs.

    python -m benchmarks.simulate                            # 1, 10, 100 and 1,000 replicas, three channels: some minutes
    python -m benchmarks.simulate --replicas 1 10 --backends gloo
    python -m benchmarks.simulate --set deadlines.lease_s=15.0 --json fleet.json

The weights are those of a model of 7.6 billion parameters in bfloat16 (14.2 GiB); a step takes 20 s, so that a sync is alone.
What wires and commands take is said in network.py and server.py: seconds are worth what these are; messages, bytes, commands
and who waits for whom come from the run's own code.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.simulate.cases import Figures, configured, measured
from benchmarks.simulate.learner import model_of_7b
from benchmarks.simulate.ranks import RankFigures, rank_figures

FLEET = {
    "form, s": "form_s",
    "sync, s": "sync_s",
    "steps wait": "late_s",
    "messages": "messages",
    "commands": "operations",
    "idle, commands/s": "idle_operations_s",
    "Redis, MiB": "redis_mib",
    "Redis busy": "redis_busy",
    "learner sends, GiB": "learner_gib",
    "all wires, GiB": "all_gib",
    "unread": "unread",
    "left behind": "left_behind",
    "1 % suspended, s": "suspended_s",
    "they catch up, s": "caught_up_s",
}
TEAM = {
    "order, MiB": "order_mib",
    "to all ranks, MiB": "orders_all_mib",
    "sums": "collectives",
    "each rank reads, s": "read_s",
    "on the wire, s": "wire_s",
    "order of a sync, bytes": "sync_order_bytes",
    "gather (ZeRO 3), GiB": "gather_gib",
    "gather, s": "gather_s",
}


def fleet_table(found: Sequence[Figures]) -> Iterator[str]:
    yield f"| channel | replicas | {' | '.join(FLEET)} |"
    yield "|---" * (2 + len(FLEET)) + "|"
    for one in found:
        yield f"| {one.backend} | {one.replicas:,} | {' | '.join(_shown(getattr(one, name)) for name in FLEET.values())} |"


def team_table(found: Sequence[RankFigures]) -> Iterator[str]:
    yield f"| ranks | {' | '.join(TEAM)} |"
    yield "|---" * (1 + len(TEAM)) + "|"
    for one in found:
        yield f"| {one.ranks} | {' | '.join(_shown(getattr(one, name)) for name in TEAM.values())} |"


def _shown(value: float) -> str:
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--backends", nargs="+", choices=["gloo", "nccl", "http"], default=["gloo", "nccl", "http"])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--syncs", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the run, such as deadlines.lease_s=15.0")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fleets = []
        for backend in asked.backends:
            for replicas in asked.replicas:
                fleets.append(measured(folder, replicas, backend, *asked.set, syncs=asked.syncs))
                print(json.dumps(asdict(fleets[-1])), file=sys.stderr, flush=True)
        config = configured(folder, "gloo", *asked.set)
        buckets = model_of_7b(config.weights.bucket_mib)
        size, parameters = sum(one.size_bytes for one in buckets), sum(len(one.tensors) for one in buckets)
        teams = [rank_figures(config, ranks, size, parameters) for ranks in asked.ranks]
    print("\n".join([*fleet_table(fleets), "", *team_table(teams)]))
    if asked.json:
        rows = {"fleets": [asdict(one) for one in fleets], "teams": [asdict(one) for one in teams]}
        asked.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
