"""Writes the tasks of an environment of `verifiers` as a dataset, one line each, for the environment of that name.

    python -m rollout.environments.verifiers.rows --python .venv/verifiers/bin/python \
        --environment '{"taskset": {"id": "gsm8k"}, "agent": {"runtime": {"type": "subprocess"}}}' > data/train.jsonl
"""

import argparse
import asyncio
import json
import sys

from rollout.environments.verifiers.environment import Verifiers
from rollout.environments.verifiers.process import process_of_this_loop
from services.errors import RatchetError


async def rows_of(python: str, environment: str, most: int) -> list[dict[str, str]]:
    """The first `most` tasks, as rows of a dataset. Raises ValueError or RatchetError where there is no such environment.

    Waits for: the process of the environment.
    Until: there is no deadline; the user is there.
    Ended by: its answer, or its end.
    Metric: none; it is a command.
    """
    Verifiers(python=python, environment=json.loads(environment))  # says what is wrong with them
    found = (await process_of_this_loop(python, environment, {}).ask(rows=most))["rows"]
    return [{"prompt": one["prompt"] or one["name"], "reference": one["name"]} for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="interpreter in which verifiers is installed")
    parser.add_argument("--environment", required=True, help="the environment's settings as JSON")
    parser.add_argument("--most", type=int, default=1000, help="rows to write, at most (default 1000)")
    arguments = parser.parse_args()
    try:
        rows = asyncio.run(rows_of(arguments.python, arguments.environment, arguments.most))
    except (ValueError, RatchetError) as fault:
        sys.exit(str(fault))
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
