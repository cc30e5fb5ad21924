"""Ctrl-C in the first second of a command, while it imports."""

import subprocess
import sys

INTERRUPTED = """
import os, signal, sys
from services.command.start import main

class Impatient:
    def find_spec(self, name, path, target=None):
        if name == "services.command.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Impatient())
main()
"""


def test_a_command_that_is_interrupted_while_it_imports_ends_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stdout + done.stderr == ""


def test_what_is_installed_begins_here() -> None:
    program = "import sys; sys.argv = ['ratchet', '--version']; from services.command.start import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ratchet ")
