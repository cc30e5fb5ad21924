"""Whether a dataset's references and options are ones that its graders can judge by, before anything expensive starts.

`python -m verifier.offline.check_references` reads lines of JSON, {"place", "grader", "reference", "options"}, and prints one for
each that no response could be judged by: {"place", "fault"}. Sandbox settings come from the environment, as everywhere.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from services.graders import graders
from verifier.grader import ScoringFault, build_grader, load_grader
from verifier.graders.combine import Combine


def faults_of(grader: str, reference: Any, options: dict[str, Any]) -> Iterator[str]:
    try:
        grader_class = load_grader(graders()[grader])
        if missing := grader_class.unavailable():
            yield f"grader {grader} cannot be used on this machine: {missing}"
            return
        built = build_grader(grader_class, options)
        if not isinstance(built, Combine):
            built.check(reference)
            return
        for part in built.parts:
            if part.grader not in graders():
                yield f'there is no grader "{part.grader}" for a part'
            else:
                yield from faults_of(part.grader, built.reference_of(part, reference), part.options)
    except ScoringFault as fault:
        yield f"grader {grader}: {fault}"
    except Exception as fault:
        yield f"grader {grader} failed: {type(fault).__name__}: {fault}"


def main() -> None:
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a grader prints is not part of the answer
    for line in sys.stdin:
        asked = json.loads(line)
        for fault in faults_of(asked["grader"], asked["reference"], asked["options"]):
            output.write(json.dumps({"place": asked["place"], "fault": fault}) + "\n")
            output.flush()


if __name__ == "__main__":
    main()
