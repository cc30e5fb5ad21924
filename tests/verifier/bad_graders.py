"""Graders that go wrong in every way a grader can; imported only in grader processes."""

import collections
import itertools
import os
import signal
import time
from typing import Any

from verifier.grader import Grader, Judgment, ScoringFault

REGISTRY = {
    "exact": "verifier.graders.exact:ExactMatch",
    "math": "verifier.graders.math.grader:MathAnswer",
    "combine": "verifier.graders.combine:Combine",
    "odd": "tests.verifier.bad_graders:Odd",
    "missing": "tests.verifier.no_such_module:Anything",
    "fatal_import": "tests.verifier.fatal_import:Anything",
}


class Odd(Grader, frozen=True):
    """Does what the response says."""

    def check(self, reference: Any) -> None:
        self.score(str(reference), reference)  # a reference that is an order is obeyed too

    def score(self, response: str, reference: Any) -> Judgment:  # noqa: PLR0912 - one line for each way to go wrong
        match response.split():
            case ["spin"]:
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
                collections.deque(itertools.repeat(None), maxlen=0)  # for ever, and in C
            case ["exit"]:
                os._exit(7)
            case ["segfault"]:
                os.kill(os.getpid(), signal.SIGSEGV)
            case ["raise"]:
                raise RuntimeError("the grader has a bug")
            case ["fault"]:
                raise ScoringFault("the reference is wrong")
            case ["memory"]:
                bytearray(64 * 2**30)
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["stall", path]:  # the second process that looks at it has it easy
                with open(path, "a+") as looks:
                    looks.write("x")
                    first = looks.tell() == 1
                if first:
                    stall()
            case ["stall"]:
                stall()
            case ["nan"]:
                return Judgment(True, "", float("nan"))
            case ["print"]:
                print("noise on stdout")
            case ["leave"]:
                raise SystemExit(3)
        return Judgment(response == reference, f"pid {os.getpid()}")


def stall() -> None:
    """As on a machine that is too busy: some work, and no end."""
    end_s = time.process_time() + 0.12
    while time.process_time() < end_s:
        pass
    time.sleep(60)
