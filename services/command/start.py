"""Where the `ratchet` command begins: Ctrl-C ends it without a traceback, also while it imports what it needs."""

import os
import signal

INTERRUPTED = 130
"""As in services/entry.py, which takes a while to import."""


def main() -> None:
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    from services.command import cli

    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()
