"""Checks whether graders can judge by a dataset's reference answers and options, before anything expensive starts.

`python -m verifier.offline.check_references` reads lines of JSON, {"place", "grader", "reference", "options"}, and prints
{"place", "fault"} for each that no response could be judged by. The sandbox's settings come from the environment, as in a
grader process.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from services.graders import graders
from verifier.contract import ScoreItem
from verifier.grader import ScoringFault, build_grader, load_grader
from verifier.graders.combine import Combine


def faults_of(item: ScoreItem) -> Iterator[str]:
    """Why no response could be judged by this item's reference and options; nothing: they are fine."""
    grader = item.grader
    try:
        grader_class = load_grader(graders()[grader])
        if missing := grader_class.unavailable():
            yield f"grader {grader} cannot be used on this machine: {missing}"
            return
        built = build_grader(grader_class, item.options)
        built.check(item.reference)
        for part in built.questions(item) if isinstance(built, Combine) else ():
            if part.grader not in graders():
                yield f'there is no grader "{part.grader}" for a part'
            else:
                yield from faults_of(part)
    except ScoringFault as fault:
        yield f"grader {grader}: {fault}"
    except Exception as fault:
        yield f"grader {grader} failed: {type(fault).__name__}: {fault}"


def option_fault(grader: str, options: Mapping[str, Any]) -> str:
    """Why a grader, or a grader that it asks, cannot be built with these options; empty: it can."""
    try:
        built = build_grader(load_grader(graders()[grader]), options)
    except ScoringFault as fault:
        return f"grader {grader}: {fault}"
    for part in built.parts if isinstance(built, Combine) else ():
        if part.grader not in graders():
            return f'there is no grader "{part.grader}" for a part'
        if fault_ := option_fault(part.grader, part.options):
            return fault_
    return ""


def main() -> None:
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a grader prints is not part of the answer
    for line in sys.stdin:
        asked = json.loads(line)
        item = ScoreItem(asked["place"], asked["grader"], "", asked["reference"], asked["options"])
        for fault in faults_of(item):
            output.write(json.dumps({"place": asked["place"], "fault": fault}) + "\n")
            output.flush()


if __name__ == "__main__":
    main()
