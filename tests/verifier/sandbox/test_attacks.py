"""What graded code may not reach: each attack is tried for real, and returns what it got.

All are loaded once and tried one after the other, each in a process of its own. What uses more than its share is in
test_bounds.py.
"""

import errno
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from services.config.sandbox import Bubblewrap
from tests.verifier.sandbox.machine import nothing_is_left, sandbox_or_skip
from verifier.sandbox.limits import limits_within
from verifier.sandbox.session import Session

MARKER = "ratchet-attack-marker"


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> None:
    sandbox_or_skip()


REACHES: Mapping[str, tuple[str, object]] = {
    # name: (body of a function, what it must return). What is raised counts as returned, by its name.
    "the host's users": ("return open('/etc/passwd').read()", "FileNotFoundError"),
    "the host's password hashes": ("return open('/etc/shadow').read()", "FileNotFoundError"),
    "the first process's environment": ("return open('/proc/1/environ').read()", "FileNotFoundError"),
    "its own memory as a file": ("return open('/proc/self/mem', 'rb').read(1)", "FileNotFoundError"),
    "files through /proc/self/fd": ("return os.listdir('/proc/self/fd')", "FileNotFoundError"),
    "the service through /proc/self/root": ("return os.listdir('/proc/self/root')", "FileNotFoundError"),
    "the kernel's settings": ("return os.listdir('/sys')", "FileNotFoundError"),
    "the host's home folders": ("return [n for n in ('/root', '/home', '/work', '/mnt') if os.path.exists(n)]", []),
    "the host's root folder": ("return sorted(set(os.listdir('/')) - {'usr', 'lib', 'lib64', 'opt'})", ["dev", "tmp"]),
    "Ratchet itself": ("import verifier", "ModuleNotFoundError"),
    "installed packages": ("import msgspec", "ModuleNotFoundError"),
    "the service's environment": ("return [n for n in os.environ if n.startswith(('RATCHET', 'SECRET', 'AWS'))]", []),
    # A folder may be there: on the way to the interpreter, where that lies below /tmp.
    "files of the host in /tmp": ("return [n for n in os.listdir('/tmp') if not os.path.isdir('/tmp/' + n)]", []),
    "a file through a symlink": ("os.symlink('/etc/passwd', 'x'); return open('x').read()", "FileNotFoundError"),
    "a file through a relative path": ("return open('../../../../etc/hostname').read()", "FileNotFoundError"),
    "a file by its handle": (
        "return call('open_by_handle_at', -100, ctypes.create_string_buffer(64), 0)",
        errno.EPERM,
    ),
    "the root folder, to write": ("open('/x', 'w')", "OSError EROFS"),
    "the standard library, to write": ("open(os.path.join(os.path.dirname(os.__file__), 'x'), 'w')", "OSError EROFS"),
    "the interpreter, to write": ("open(sys.executable, 'r+b')", "OSError EROFS|PermissionError|OSError ETXTBSY"),
    "a file on the host, to write": (f"open('/tmp/{MARKER}', 'w').write('x'); return 'written'", "written"),
    "a shell": ("os.execv('/bin/sh', ['sh', '-c', 'id'])", "FileNotFoundError"),
    "a setuid program of its own": (
        "import shutil; shutil.copy(sys.executable, 'own'); os.chmod('own', 0o4755); os.chown('own', 0, 0)",
        "OSError EINVAL|PermissionError",
    ),
    "a network address": ("import socket; socket.create_connection(('1.1.1.1', 53), 1)", "PermissionError"),
    "a name on the network": ("import socket; socket.gethostbyname('example.org')", "gaierror"),
    "the host's loopback": ("import socket; socket.create_connection(('127.0.0.1', 6379), 1)", "PermissionError"),
    "a unix socket": ("import socket; socket.socket(socket.AF_UNIX)", "PermissionError"),
    "the kernel's netlink": ("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "PermissionError"),
    "a raw socket": ("import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "PermissionError"),
    "a new user namespace": ("return libc.unshare(0x10000000) and ctypes.get_errno()", errno.EPERM),
    "a new namespace by clone": ("return call('clone', 0x10000000 | 17, 0, 0, 0, 0)", errno.EPERM),
    "a new namespace by clone3": ("return call('clone3', ctypes.create_string_buffer(88), 88)", errno.ENOSYS),
    "another namespace": ("return libc.setns(0, 0) and ctypes.get_errno()", errno.EPERM),
    "a mount": ("return libc.mount(b'x', b'/tmp', b'tmpfs', 0, None) and ctypes.get_errno()", errno.EPERM),
    "the root folder, writable again": (
        "return libc.mount(None, b'/', None, 32 | 4096, None) and ctypes.get_errno()",
        errno.EPERM,
    ),
    "a mount by the new calls": ("return call('fsopen', b'tmpfs', 0)", errno.EPERM),
    "another root folder": ("os.chroot('/tmp')", "PermissionError"),
    "its parent's memory by ptrace": ("return call('ptrace', 16, os.getppid(), 0, 0)", errno.EPERM),
    "its parent's memory by reading": (
        "return call('process_vm_readv', os.getppid(), ctypes.create_string_buffer(16), 1, "
        "ctypes.create_string_buffer(16), 1, 0)",
        errno.EPERM,
    ),
    "its parent's files": ("return call('pidfd_getfd', os.pidfd_open(os.getppid()), 0, 0)", errno.EPERM),
    "processes of the host": ("return [n for n in range(3, 3000) if n != os.getpid() and alive(n)]", []),
    "the end of the first process": ("os.kill(1, 9); return 'still here'", "still here"),
    "root": ("os.setuid(0)", "OSError EINVAL|PermissionError"),
    "another group": ("os.setgroups([0])", "PermissionError|OSError EINVAL"),
    "capabilities": ("return call('capset', cap_header(), ctypes.create_string_buffer(b'\\xff' * 24))", errno.EPERM),
    "a device": ("os.mknod('disk', 0o60600, os.makedev(254, 0))", "PermissionError"),
    "the machine's devices": (
        "return sorted(os.listdir('/dev'))",
        ["full", "null", "random", "shm", "urandom", "zero"],
    ),
    "a terminal": ("return open('/dev/tty').read()", "FileNotFoundError"),
    "a terminal's input": (
        "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
        "PermissionError",
    ),
    "memory that no process has": ("os.memfd_create('x')", "PermissionError"),
    "shared memory of the system": ("return call('shmget', 0, 4096, 0o1600)", errno.EPERM),
    "a message queue": ("return call('mq_open', b'x', 66, 0o600, None)", errno.EPERM),
    "extended attributes": ("open('attributes', 'w'); os.setxattr('attributes', 'user.x', b'y')", "PermissionError"),
    "programs in the kernel": ("return call('bpf', 0, ctypes.create_string_buffer(128), 128)", errno.EPERM),
    "the kernel's page faults": ("return call('userfaultfd', 0)", errno.EPERM),
    "the kernel's rings": ("return call('io_uring_setup', 8, ctypes.create_string_buffer(120))", errno.EPERM),
    "the kernel's counters": (
        "return call('perf_event_open', ctypes.create_string_buffer(128), 0, -1, -1, 0)",
        errno.EPERM,
    ),
    "the kernel's keys": ("return call('keyctl', 0, -3, 0, 0, 0)", errno.EPERM),
    "a system call of tomorrow": ("return call(600)", errno.ENOSYS),
    "system calls of x32": ("return call(0x40000000 + 39)", errno.ENOSYS),
    "higher limits": ("import resource; resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))", "ValueError"),
    "limits of its parent": (
        "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (10**6, 10**6))",
        "PermissionError",
    ),
    "a better priority": ("os.nice(-5)", "PermissionError"),
    "real time": ("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))", "PermissionError"),
    "memory that stays": (
        "m = ctypes.create_string_buffer(2**20); return libc.mlock(m, 2**20) and ctypes.get_errno()",
        errno.EPERM,
    ),
    "the host's name": ("return os.uname().nodename", "sandbox"),
    "another host name": ("import socket; socket.sethostname('x')", "PermissionError"),
    "the clock": ("time.clock_settime(time.CLOCK_REALTIME, 0)", "PermissionError"),
    "the host's disks": ("return call('syncfs', os.open('/tmp', os.O_RDONLY))", errno.EPERM),
    "the kernel's log": ("return call('syslog', 3, ctypes.create_string_buffer(64), 64)", errno.EPERM),
    "files that it was not given": ("return [kind(n) for n in range(3, 64) if kind(n)]", ["pipe", "pipe"]),
}

PREAMBLE = """
import ctypes, errno, os, stat, sys, time
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = %r
def call(name, *arguments):
    libc.syscall(ctypes.c_long(NUMBERS.get(name, name)), *arguments)
    return ctypes.get_errno()
def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # there is one, and it is another's
    return True
def cap_header():
    return ctypes.create_string_buffer(bytes([0x22, 5, 8, 0x20, 0, 0, 0, 0]))
def kind(fd):
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return None
    return "pipe" if stat.S_ISFIFO(mode) else "regular" if stat.S_ISREG(mode) else "other"
def attempt(number):
    try:
        return ATTACKS[number]()
    except OSError as fault:
        name = type(fault).__name__
        return name + " " + errno.errorcode[fault.errno] if name == "OSError" else name
    except Exception as fault:
        return type(fault).__name__
"""
NUMBERS = {
    "x86_64": {
        **{"open_by_handle_at": 304, "clone": 56, "clone3": 435, "fsopen": 430, "ptrace": 101, "process_vm_readv": 310},
        **{"pidfd_getfd": 438, "capset": 126, "shmget": 29, "mq_open": 240, "bpf": 321, "userfaultfd": 323},
        **{"io_uring_setup": 425, "perf_event_open": 298, "keyctl": 250, "syslog": 103, "syncfs": 306},
    },
    "aarch64": {
        **{
            "open_by_handle_at": 265,
            "clone": 220,
            "clone3": 435,
            "fsopen": 430,
            "ptrace": 117,
            "process_vm_readv": 270,
        },
        **{"pidfd_getfd": 438, "capset": 91, "shmget": 194, "mq_open": 180, "bpf": 280, "userfaultfd": 282},
        **{"io_uring_setup": 425, "perf_event_open": 241, "keyctl": 219, "syslog": 116, "syncfs": 267},
    },
}


@pytest.fixture(scope="module")
def reached() -> Iterator[dict[str, object]]:
    """What each attack returned."""
    program = PREAMBLE % NUMBERS.get(platform.machine(), {}) + "ATTACKS = []\n"
    for body, _ in REACHES.values():
        program += f"def attack():\n    {body}\nATTACKS.append(attack)\n"
    os.environ["SECRET_OF_THE_SERVICE"] = "s3cret"
    limits = limits_within(Bubblewrap(), wall_s=10.0, memory_mb=256)
    try:
        with (
            tempfile.NamedTemporaryFile(dir="/tmp"),
            nothing_is_left(),
            Session(sandbox_or_skip(), limits) as session,
        ):
            session.load(program, "attempt")
            results: dict[str, object] = {}
            for number, name in enumerate(REACHES):
                finished = session.test({"args": [number], "kwargs": {}})
                results[name] = json.loads(finished.result) if finished.result else f"{finished}"
            yield results
    finally:
        del os.environ["SECRET_OF_THE_SERVICE"]


@pytest.mark.parametrize("name", REACHES)
def test_graded_code_does_not_reach(name: str, reached: dict[str, object]) -> None:
    wanted = REACHES[name][1]
    accepted = wanted.split("|") if isinstance(wanted, str) else [wanted]
    assert reached[name] in accepted


def test_what_graded_code_writes_is_not_on_the_host(reached: dict[str, object]) -> None:
    assert reached["a file on the host, to write"] == "written"
    assert not Path(tempfile.gettempdir(), MARKER).exists()
    assert not Path("/tmp", MARKER).exists()
