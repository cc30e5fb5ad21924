"""Forks grader processes that have their graders already imported: a replacement takes milliseconds, not half a second of
importing sympy. Run as `python -m verifier.pool.fork_server CONTROL PARENT`, where CONTROL is the number of a socket.

It is asked by one datagram each: `grow`, with the child's socket and progress page attached, or `ready MODULE:CLASS`. It
answers `started PID` and `ended PID STATUS`. It imports and warms up only graders that a grader process has imported and
survived: an import that ends the process would end them all. It judges no response itself and has no threads, so that
forking it is safe.
"""

import gc
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress

from verifier.grader import load_grader
from verifier.pool.grader_process import serve, settle_in
from verifier.pool.protocol import ProgressPage

MESSAGE_BYTES = 4096


def main() -> None:
    """Serves the pool until it closes the socket.

    Waits for: the pool's datagrams, and the ends of the forked processes.
    Until: it is stopped.
    Ended by: a datagram, a process's end, or the pool closing the socket.
    Metric: none in this process; the pool sets ratchet_waiting{room="verifier", awaiting="grader process"}.
    """
    control, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    settle_in(parent)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        readable, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, MESSAGE_BYTES)
            reap(control)
        if control.fileno() in readable:
            message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 2)
            if not message:
                return  # the service is gone or no longer needs this
            verb, _, location = message.decode().partition(" ")
            if verb == "grow":
                grow(control, woken, wake, *descriptors)
            else:
                with suppress(Exception):  # then the grader processes import it themselves, and say what is wrong
                    load_grader(location).warm_up()
                gc.collect()
                gc.freeze()  # the collector's marks would copy the pages that parent and children share


def grow(control: socket.socket, woken: int, wake: int, pool: int, page: int) -> None:
    """Forks a grader process. pool, page: descriptors of its socket and its progress page."""
    this = os.getpid()
    child = os.fork()
    if child:
        os.close(pool)
        os.close(page)
        control.send(f"started {child}".encode())
        return
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for inherited in (control.fileno(), woken, wake):
            os.close(inherited)
        settle_in(this)
        serve(socket.socket(fileno=pool), ProgressPage(page))
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # not through the parent's frames


def reap(control: socket.socket) -> None:
    """Tells the pool which processes have ended, and how."""
    with suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            control.send(f"ended {child} {os.waitstatus_to_exitcode(status)}".encode())


if __name__ == "__main__":
    with suppress(ConnectionError):  # the service closed the socket in the middle of a message: that ends this too
        main()
