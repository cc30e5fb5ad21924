"""A network between services of one machine: a namespace for each, and a switch in this process that carries every packet.

What a relay cannot stand between can be cut and slowed here: the connections of gloo, which its members make by themselves, their
store, and the learner's weight server. A packet that a cut swallows is lost, as in a real network; TCP sends it again.
"""

import ctypes
import fcntl
import heapq
import itertools
import os
import selectors
import socket
import struct
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Self

from services.clock import now_s

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
DEVICE = "wire0"
"""The one device of each namespace, beside loopback."""
MTU = 60_000
SETTING_UP_S = 10.0


def enter(namespace: Path) -> None:
    """Put this thread, and those that it starts from now on, into a namespace. Raises OSError."""
    with namespace.open("rb") as file:
        _checked(ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET))


class Network:
    """The hosts of a run, as far as their network goes; each has the address 10.231.0.N."""

    def __init__(self, names: Sequence[str]) -> None:
        """names: of the hosts. Raises OSError where this user may not make namespaces."""
        self._hosts: dict[str, _Host] = {}
        self._links: dict[frozenset[int], float | None] = {}
        """Pair of hosts -> seconds by which a packet is late; None: nothing arrives. A pair that is not here is whole."""
        self._closing = threading.Event()
        self._switch = threading.Thread(target=self._carry, name="switch", daemon=True)
        try:
            for number, name in enumerate(names, 1):
                self._hosts[name] = _Host(number)
        except OSError:
            for host in self._hosts.values():
                host.close()
            raise
        self._switch.start()

    def address(self, name: str) -> str:
        return self._hosts[name].address

    def namespace(self, name: str) -> Path:
        """What `enter` takes, in any process, for as long as this one lives."""
        return self._hosts[name].namespace

    def listener(self, name: str) -> socket.socket:
        """A socket that listens on this host's loopback and that this process may accept from."""
        return self._hosts[name].listener

    def cut(self, one: str, other: str) -> None:
        """Nothing arrives between the two."""
        self._links[self._pair(one, other)] = None

    def slow(self, one: str, other: str, delay_s: float) -> None:
        """Every packet between the two is so much later."""
        self._links[self._pair(one, other)] = delay_s

    def mend(self, one: str, other: str) -> None:
        self._links.pop(self._pair(one, other), None)

    def close(self) -> None:
        self._closing.set()
        self._switch.join()
        for host in self._hosts.values():
            host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pair(self, one: str, other: str) -> frozenset[int]:
        return frozenset((self._hosts[one].number, self._hosts[other].number))

    def _carry(self) -> None:
        """Carry packets from host to host, until `close`."""
        device_of = {host.number: host.device for host in self._hosts.values()}
        order = itertools.count()
        late: list[tuple[float, int, int, bytes]] = []
        with selectors.DefaultSelector() as readable:
            for number, device in device_of.items():
                readable.register(device, selectors.EVENT_READ, number)
            while not self._closing.is_set():
                wait_s = min(0.1, max(0.0, late[0][0] - now_s())) if late else 0.1
                for key, _ in readable.select(wait_s):
                    with suppress(BlockingIOError):
                        packet = os.read(key.fd, MTU + 64)
                        to = packet[19] if packet[0] >> 4 == 4 else 0  # the last byte of an IPv4 packet's destination
                        delay_s = self._links.get(frozenset((key.data, to)), 0.0)
                        if to in device_of and delay_s is not None:
                            heapq.heappush(late, (now_s() + delay_s, next(order), to, packet))
                while late and late[0][0] <= now_s():
                    _, _, to, packet = heapq.heappop(late)
                    with suppress(BlockingIOError):  # a full device drops it, and TCP sends it again
                        os.write(device_of[to], packet)


class _Host:
    """A namespace, its device, and a socket in it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.address = f"10.231.0.{number}"
        made: Future[tuple[int, int, socket.socket]] = Future()
        threading.Thread(target=self._make, args=(made,), daemon=True).start()
        space, device, listener = made.result(SETTING_UP_S)
        self._space = space
        self.device = device
        self.listener = listener
        self.namespace = Path(f"/proc/{os.getpid()}/fd/{space}")

    def _make(self, made: "Future[tuple[int, int, socket.socket]]") -> None:
        """In a thread, because only the thread that asks for a namespace gets it, with the programs that it starts."""
        try:
            _checked(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET))
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
            for command in (
                ("link", "set", "lo", "up"),
                ("address", "add", f"{self.address}/24", "dev", DEVICE),
                ("link", "set", DEVICE, "mtu", str(MTU), "up"),
            ):
                subprocess.run(["ip", *command], check=True, capture_output=True)
            space = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            made.set_result((space, device, socket.create_server(("127.0.0.1", 0))))
        except (OSError, subprocess.CalledProcessError) as fault:
            made.set_exception(fault if isinstance(fault, OSError) else OSError(str(fault)))

    def close(self) -> None:
        self.listener.close()
        os.close(self.device)
        os.close(self._space)


def _checked(answer: int) -> None:
    if answer:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
