"""A network cable between a client and a server: a TCP proxy that stops forwarding when it is cut, and loses nothing unless it is
told to.

with Cable(to=("127.0.0.1", 6379)) as cable:     # or the path of a unix socket
    connect to ("127.0.0.1", cable.port)
    cable.cut()                                  # both ends stay connected and hear nothing of each other
    cable.mend()
    cable.lose_answer(after=1)                   # the second answer from now on is lost, and with it its connection
"""

import socket
import threading
from contextlib import suppress
from typing import Self


class Cable:
    def __init__(self, to: tuple[str, int] | str) -> None:
        self._to = to
        self._whole = threading.Event()
        self._whole.set()
        self._passing: int | None = None  # answers that pass before one is lost
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def lose_answer(self, *, after: int) -> None:
        """Pass on this many answers, lose the next one and end its connection: the server has done what was asked."""
        self._passing = after

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # else `accept` would go on waiting
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._whole.set()
        self._accepting.join(5)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                self._ends.append(near)
                self._whole.wait()
                far = socket.socket(socket.AF_UNIX if isinstance(self._to, str) else socket.AF_INET)
                self._ends.append(far)
                far.connect(self._to)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(source, sink, source is far), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._whole.wait()
                if is_answer and self._is_lost():
                    sink.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(data)
            self._whole.wait()
            sink.shutdown(socket.SHUT_WR)

    def _is_lost(self) -> bool:
        if self._passing is None:
            return False
        self._passing = self._passing - 1 if self._passing else None
        return self._passing is None
