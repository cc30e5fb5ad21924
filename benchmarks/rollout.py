"""The rollout service against vLLM itself: the same prompts, seeds and settings of the engine, on the same core.

    python -m benchmarks.rollout [--rounds 5] [--case short] [--engine-process own] [--out .bench/rollout.json]

One side is a real service (`python -m rollout`) with a real Redis server, which gets its weights over gloo as from a learner. The
other is vLLM's `LLM.generate` in one process. Both are pinned to one core (--core), Redis to another, and take turns; the first
turn of each is not counted. What is compared is sampled tokens per second of wall time, and per second of processor time of all
processes of a side, which other work on the machine disturbs less. Above 1 the service is faster.

short: 4-token answers, 256 in flight, 4,096 a round. long: 200-token answers, 256 a round. The model is a random Qwen2 of
0.8 M parameters that never ends an answer early.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.machine import machine
from services.clock import Deadline
from services.command.redis_server import RedisServer
from services.config.load import load
from services.entry import REDIS_URL_VARIABLE
from services.run.json_text import json_text
from services.streams.names import PROMPTS, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.weights.buckets import pack
from services.weights.meeting import RendezvousStore
from services.weights.membership import Membership
from services.weights.process_group import ProcessGroupChannel
from services.wire.codec import Array, decode, encode
from services.wire.prompt import Prompt
from services.wire.trajectory import Group
from services.wire.weights import Gap, Probe, Rendezvous, WeightManifest
from tests.rollout.small_model import logp_under, random_model, write_model

ROOT = Path(__file__).resolve().parents[1]
GROUP_SIZE = 8
REPLICA = "rollout-0"
START_S = 300.0
ROUND_S = 300.0
CASES = {"short": (4, 512), "long": (200, 32)}
"""Tokens of an answer, and groups in a round."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of one side."""

    tokens: int
    wall_s: float
    cpu_s: float


def prompts(case: str, turn: int) -> list[Prompt]:
    """Those of one round, the same for both sides."""
    tokens, groups = CASES[case]
    return [
        Prompt(
            group_id=f"train-{number}",
            sequence_number=number,
            purpose="train",
            row=0,
            token_ids=Array.of([1 + (number * 7 + position) % 17 for position in range(6)], "<i4"),
            group_size=GROUP_SIZE,
            temperature=1.0,
            max_tokens=tokens,
            stop_token_ids=(),
            seed=number * GROUP_SIZE,
            grader="exact",
            reference="",
            options={},
        )
        for number in range(turn * groups, (turn + 1) * groups)
    ]


def settings(folder: Path, engine_process: str) -> Path:
    """A run file for both sides, and its model."""
    write_model(folder / "model", tied=True)
    run = {
        "name": "rollout-benchmark",
        "device": "cpu",
        "model": {"path": str(folder / "model"), "max_length": 256, "dtype": "float32"},
        "prompts": {"source": {"type": "jsonl", "path": "unused.jsonl"}, "grader": "exact"},
        "rollout": {
            "sampling": {"max_tokens": 200, "group_size": GROUP_SIZE},
            "max_concurrent_sequences": 256,
            "kv_cache_gib": 0.5,
            "engine_process": engine_process,
        },
        "learner": {"steps": 1, "groups_per_step": 1},
        "weights": {"type": "gloo"},
    }
    path = folder / "run.toml"
    path.write_text(tomli_w.dumps(run), encoding="utf-8")
    return path


def pinned(core: int, *command: str) -> list[str]:
    return ["taskset", "-c", str(core), *command]


def cpu_s(process: int) -> float:
    """Processor seconds of a process and of all that it started and has not ended."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    children = [
        int(child)
        for tasks in Path(f"/proc/{process}/task").glob("*/children")
        for child in tasks.read_text(encoding="utf-8").split()
    ]
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(map(cpu_s, children))


class Service:
    """`python -m rollout`, with what it needs around it."""

    def __init__(self, run: Path, core: int, redis: RedisServer, log: Path) -> None:
        config = load(run)
        self._connection = RedisConnection(redis.url)
        self._prompts = RedisStream(self._connection, config.name, PROMPTS, "learner", 1e8)
        self._issue_log = RedisIssueLog(self._connection, self._prompts)
        self._trajectories = RedisStream(self._connection, config.name, TRAJECTORIES, "verifier", 1e8)
        self._membership = Membership(self._connection, config.name, config.deadlines.lease_s)
        self._store = RendezvousStore("127.0.0.1")
        self._channel = ProcessGroupChannel(self._store)
        with log.open("wb") as lines:
            self.process = subprocess.Popen(
                pinned(core, sys.executable, "-m", "rollout", str(run), "--replica-id", REPLICA),
                cwd=ROOT,
                env={**os.environ, REDIS_URL_VARIABLE: redis.url},
                stdout=lines,
                stderr=lines,
            )

    def serve(self) -> None:
        """Return when it takes prompts."""
        self._until(lambda: REPLICA in self._membership.live(), START_S)
        self._send_weights()
        self._until(lambda: REPLICA in (live := self._membership.live()) and live[REPLICA].ready, START_S)

    def _send_weights(self) -> None:
        """As a learner does for version 0."""
        soon = Deadline.after(60.0, "the replica")
        rendezvous = Rendezvous(
            pg_generation=1,
            backend="gloo",
            host="127.0.0.1",
            port=self._store.port,
            size=2,
            first_ranks={REPLICA: 1},
            timeout_s=60.0,
        )
        self._membership.announce(rendezvous)
        self._channel.form(rendezvous, soon)
        model = random_model(0, tied=True)
        packed = pack(list(model.named_parameters()), bucket_mib=4)
        token_ids = tuple(range(1, 9))
        probe = Probe(token_ids, tuple(logp_under(model, [token_ids[0]], list(token_ids[1:])).tolist()))
        manifest = WeightManifest(
            policy_version=0,
            pg_generation=1,
            buckets=tuple(bucket for bucket, _ in packed),
            probes=(probe,),
            bound=Gap(1e-3, 1e-3, 1e-3),
        )
        self._membership.announce(manifest)
        self._channel.send(manifest, [flat for _, flat in packed], soon)

    def turn(self, case: str, number: int) -> Turn:
        asked = prompts(case, number)
        records = [(prompt.sequence_number, encode(prompt)) for prompt in asked]
        began_s, began_cpu_s = time.monotonic(), cpu_s(self.process.pid)
        for sequence_number, payload in records:
            self._issue_log.issue(sequence_number - asked[0].sequence_number + self._issued, payload)
        self._until(lambda: self._trajectories.depth().waiting >= len(asked), ROUND_S)
        wall_s, took_cpu_s = time.monotonic() - began_s, cpu_s(self.process.pid) - began_cpu_s
        self._issued += len(asked)
        claims = self._trajectories.claim(len(asked), 0.0)
        self._trajectories.acknowledge(claims)
        tokens = sum(len(one) for claim in claims for one in decode(claim.payload, Group).trajectories)
        return Turn(tokens, wall_s, took_cpu_s)

    _issued = 0

    def _until(self, condition: Callable[[], bool], within_s: float) -> None:
        end_s = time.monotonic() + within_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end_s:
                raise SystemExit("the service ended or did not answer in time; see its log")
            time.sleep(0.01)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._channel.close()
        self._connection.close()


class Bare:
    """`LLM.generate` in a process of its own; it runs `serve_bare` below."""

    def __init__(self, run: Path, core: int, log: Path) -> None:
        with log.open("wb") as lines:
            self.process = subprocess.Popen(
                pinned(core, sys.executable, "-m", "benchmarks.rollout", "--bare", str(run)),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=lines,
                text=True,
            )

    def turn(self, case: str, number: int) -> Turn:
        """The first waits for the model to load, which is not measured."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{case} {number}\n")
        self.process.stdin.flush()
        return Turn(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit("vLLM ended; see its log")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def serve_bare(run_file: Path) -> None:
    """Sample each round that a line of standard input names, and print what it took."""
    from rollout.vllm.launch import engine_arguments, set_environment
    from rollout.vllm.requests import sampling_parameters

    run = load(run_file)
    set_environment(run)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM
    from vllm.inputs import TokensPrompt

    llm = LLM(**engine_arguments(run), disable_log_stats=False)
    for line in sys.stdin:
        case, number = line.split()
        asked = prompts(case, int(number))
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        outputs = llm.generate(
            [TokensPrompt(prompt_token_ids=prompt.token_ids.numpy().tolist()) for prompt in asked],
            [sampling_parameters(prompt, (), greedy=False) for prompt in asked],
            use_tqdm=False,
        )
        tokens = sum(len(one.token_ids) for output in outputs for one in output.outputs)
        took = Turn(tokens, time.monotonic() - began_s, time.process_time() - began_cpu_s)
        print(json.dumps(asdict(took)), flush=True)


@contextmanager
def both(run: Path, core: int, redis_core: int, folder: Path, logs: Path) -> Iterator[dict[str, Bare | Service]]:
    os.sched_setaffinity(0, {redis_core})  # this process, and the server that it starts
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or the sides would outlive it
    with ExitStack() as ending:
        redis = ending.enter_context(RedisServer(folder / "redis"))
        bare = Bare(run, core, logs / "bare.log")
        ending.callback(bare.close)
        service = Service(run, core, redis, logs / "service.log")
        ending.callback(service.close)
        service.serve()
        yield {"bare": bare, "service": service}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--engine-process", choices=("auto", "own", "shared"), default="auto")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--redis-core", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "rollout.json")
    arguments = parser.parse_args()
    if arguments.bare is not None:
        serve_bare(arguments.bare)
        return
    out = arguments.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"engine_process": arguments.engine_process}
    print(f"{'':6} {'bare tok/s':>11} {'service':>9} {'wall ratio':>11} {'CPU ratio':>10}  CPU ratio of each round")
    with tempfile.TemporaryDirectory() as scratch:
        run = settings(Path(scratch), arguments.engine_process)
        with both(run, arguments.core, arguments.redis_core, Path(scratch), out.parent) as sides:
            number = 0
            for case in arguments.case or CASES:
                turns: dict[str, list[Turn]] = {"bare": [], "service": []}
                for _ in range(arguments.rounds + 1):
                    for name, side in sides.items():
                        turns[name].append(side.turn(case, number))
                    number += 1
                report[case] = compared({name: found[1:] for name, found in turns.items()})
                show(case, report[case])
    report["machine"] = machine(("torch", "transformers", "vllm"))
    out.write_text(json_text(report, indent=2) + "\n", encoding="utf-8")


def compared(turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """Ratios of rounds that took turns, service to bare, and their medians."""
    pairs = list(zip(turns["bare"], turns["service"], strict=True))
    for bare, service in pairs:
        if bare.tokens != service.tokens:
            raise SystemExit(f"the two sides sampled {bare.tokens} and {service.tokens} tokens of the same prompts")
    wall = [bare.wall_s / service.wall_s for bare, service in pairs]
    cpu = [bare.cpu_s / service.cpu_s for bare, service in pairs]
    return {
        "tokens_per_s": {
            name: statistics.median(turn.tokens / turn.wall_s for turn in found) for name, found in turns.items()
        },
        "wall_ratio": statistics.median(wall),
        "cpu_ratio": statistics.median(cpu),
        "wall_ratios": wall,
        "cpu_ratios": cpu,
        "turns": {name: [asdict(turn) for turn in found] for name, found in turns.items()},
    }


def show(case: str, found: dict[str, Any]) -> None:
    speed = found["tokens_per_s"]
    each = " ".join(f"{ratio:.2f}" for ratio in found["cpu_ratios"])
    ratios = f"{found['wall_ratio']:11.2f} {found['cpu_ratio']:10.2f}"
    print(f"{case:6} {speed['bare']:11,.0f} {speed['service']:9,.0f} {ratios}  {each}", flush=True)


if __name__ == "__main__":
    main()
