"""Programs that end early, cheat, or use more than their share: bounded, incorrect with a detail, and nothing left of them.

Some only try, and answer right all the same: those are correct.
"""

import re
import time
from typing import Any

import pytest

from tests.verifier.sandbox.machine import nothing_is_left, sandbox_or_skip
from verifier.graders.code.grader import CodeTests

WALL_S = 1.0
SLACK_S = 8.0  # for a sandbox to start and to end on a busy machine


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> None:
    sandbox_or_skip()


def judge(program: str, reference: dict[str, Any]) -> tuple[bool, str]:
    grader = CodeTests(wall_s=WALL_S, memory_mb=128)
    start_s = time.monotonic()
    with nothing_is_left():
        judgment = grader.score(program, reference)
    assert time.monotonic() - start_s < WALL_S + SLACK_S
    return judgment.correct, judgment.detail


FUNCTION = {
    "kind": "function",
    "entry_point": "f",
    "tests": [{"args": [7], "expected": 49}, {"args": [2], "expected": 4}],
}

# Bodies of f(x), with os, sys, time and ctypes imported; x * x would be right.
WRONG_FUNCTIONS = {
    "ends with sys.exit": ("sys.exit(0)", "raised SystemExit: 0"),
    "ends with os._exit": ("os._exit(0)", "ended without a result"),
    "ends with a signal": ("os.kill(os.getpid(), 9)", "signal 9"),
    "ends with its own alarm": (
        "import signal; signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(9)",
        "signal 14",
    ),
    "crashes the interpreter": ("ctypes.string_at(0)", "signal 11"),
    "becomes another program": ("os.execv(sys.executable, ['python', '-S', '-c', 'pass'])", "ended without a result"),
    "closes every file": ("os.closerange(0, 64)", "ended without a result"),
    "ends the runner": ("os.kill(os.getppid(), 9); time.sleep(9)", "ended the runner"),
    "ends everything": ("os.kill(-1, 9); time.sleep(9)", "ended the runner"),
    "ends its process group": ("os.killpg(0, 9); time.sleep(9)", "ended the runner"),
    "stops the runner": ("import signal; os.kill(os.getppid(), signal.SIGSTOP); return 0", "wall time over 1 s"),
    "stops itself": ("import signal; os.kill(os.getpid(), signal.SIGSTOP)", "wall time over 1 s"),
    "sleeps": ("time.sleep(99)", "wall time over 1 s"),
    "loops": ("while True: pass", "time over 1 s"),
    "loops in C": ("return 9 ** 9 ** 9", "time over 1 s|MemoryError"),
    "loops in a regular expression": ("import re; re.match('(a+)+$', 'a' * 99 + 'b')", "time over 1 s"),
    "turns a large number into text": ("sys.set_int_max_str_digits(0); return str(10 ** 10 ** 7)", "time over 1 s"),
    "loops, deaf to signals": (
        "import signal\n    for n in range(1, 32):\n        if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\n"
        "    while True: pass",
        "time over 1 s|signal",
    ),
    "loops in a process of its own": ("os.fork() or loop(); time.sleep(99)", "time over 1 s"),
    "loops in threads": ("[threading.Thread(target=loop).start() for _ in range(4)]; loop()", "time over 1 s"),
    "forks without end": (
        "while True:\n        try: os.fork()\n        except OSError: pass",
        "over 1 s|processes|memory over",
    ),
    "starts thousands of threads": (
        "for _ in range(9999): threading.Thread(target=time.sleep, args=(9,)).start()",
        "RuntimeError: can't start new thread|MemoryError",
    ),
    "takes memory": ("return bytearray(2 ** 40)", "MemoryError"),
    "takes memory bit by bit": (
        "held = []\n    while True: held.append(bytearray(2 ** 20))",
        "MemoryError|memory over",
    ),
    "takes memory in many processes": (
        "for _ in range(6):\n        if os.fork() == 0:\n            held = bytearray(b'x') * (60 * 2 ** 20)\n"
        "            time.sleep(9)\n    time.sleep(9)",
        "memory over 128 MB",
    ),
    "takes shared memory": (
        "import mmap\n    for _ in range(6):\n        if os.fork() == 0:\n            m = mmap.mmap(-1, 60 * 2 ** 20)\n"
        "            for _ in range(60): m.write(bytes(2 ** 20))\n            time.sleep(9)\n    time.sleep(9)",
        "memory over 128 MB",
    ),
    "fills /tmp": ("open('/tmp/x', 'wb').write(bytes(64 * 2 ** 20))", "OSError: .Errno 27. File too large"),
    "fills /tmp with many files": (
        "for n in range(64): open('/tmp/%d' % n, 'wb').write(bytes(2 ** 20))",
        "OSError: .Errno 28. No space left",
    ),
    "makes files without end": (
        "n = 0\n    while True: n += 1; os.close(os.open('/tmp/%d' % n, 66))",
        "more than 4096 files|over 1 s",  # on a slow disk time is the first to run out
    ),
    "opens files without end": ("held = [os.pipe() for _ in range(999)]", "OSError: .Errno 24. Too many open files"),
    "returns a flood": ("return 'x' * (8 * 2 ** 20)", "output over 1048576 bytes"),
    "returns an endless structure": ("a = []; a.append(a); return a", "ValueError: Circular reference"),
    "returns a deep structure": (
        "a = []\n    for _ in range(10 ** 5): a = [a]\n    return a",
        "RecursionError|signal 11|MemoryError",
    ),
    "recurses": ("return f(x)", "RecursionError"),
    "recurses beyond the stack": (
        "sys.setrecursionlimit(10 ** 9)\n    class A:\n        def __getattr__(self, n): return getattr(self, n + 'x')\n"
        "    return A().x",
        "raised SystemError|signal 11|MemoryError|time over 1 s|RecursionError",
    ),
    "returns what equals everything": (
        "class Any:\n        def __eq__(self, other): return True\n    return Any()",
        "TypeError: Object of type Any is not JSON",
    ),
    "returns a number that equals everything": (
        "class Int(int):\n        def __eq__(self, other): return True\n        __hash__ = int.__hash__\n    return Int(1)",
        "result 1$",
    ),
    "returns a text that looks like the number": ("return '49'", 'result "49"'),
    "returns true for one": ("return True", "result true"),
    "returns a set": ("return {49}", "Object of type set is not JSON"),
    "returns what is not a number": ("return float('nan')", "result NaN"),
    "returns a number of many digits": ("return 10 ** 5000", "the result is not JSON"),
    "raises what cannot be read": (
        "class E(Exception):\n        def __str__(self): raise self\n    raise E()",
        "raised E: .its text cannot be read",
    ),
    "raises what loops": (
        "class E(Exception):\n        def __str__(self):\n            while True: pass\n    raise E()",
        "time over 1 s",
    ),
    "writes to the runner's pipe": ("[write(n, b'x' * 99) for n in range(3, 64)]; time.sleep(9)", "runner's pipe"),
    "claims a huge result": ("[write(n, b'R' + b'\\xff' * 9) for n in range(3, 64)]; time.sleep(9)", "output over"),
    "sends one result more": (
        "[write(n, b'R\\x02\\0\\0\\0' + b'49') for n in range(3, 64)]; return 49",
        "runner's pipe",
    ),
    "sends a result that is not JSON": (
        "[write(n, b'R\\x02\\0\\0\\0' + b'{x') for n in range(3, 64)]; os._exit(0)",
        "the result is not JSON",
    ),
    "reports its own end": ("[write(n, b'E\\x01\\0\\0\\0x') for n in range(3, 64)]; time.sleep(9)", "runner's pipe"),
    "makes the runner's pipe non-blocking": (
        "[os.set_blocking(n, False) for n in range(3, 64) if valid(n)]; return 0",
        "result 0|ended the runner",
    ),
    "replaces json": ("import json; json.JSONEncoder.encode = lambda *a: 'true'; return 49", "result true"),
    "replaces the built-ins": (
        "import builtins; builtins.len = lambda _: 0; return 0",
        "runner's pipe|result 0|without a result|raised",
    ),
    "replaces os.write": ("os.write = lambda *a: 0; return 49", "over 1 s"),
    "patches the runner": ("sys.modules['__main__'].send = lambda *a: None; return 49", "without a result"),
    "answers from an exit hook": ("import atexit; atexit.register(print, 49); sys.exit()", "raised SystemExit"),
    "runs at the end of an object": (
        "class D:\n        def __del__(self):\n            while True: pass\n    D(); return 49",
        "time over 1 s",
    ),
    "says that the sandbox is up": ("[write(n, b'S\\0\\0\\0\\0') for n in range(3, 64)]; return 49", "runner's pipe"),
    "answers from two copies of itself": (
        # The scheduler decides whether the second answer comes too early or is taken for that of the next test.
        "own = os.getpid(); os.getpid = lambda: own; os.fork(); time.sleep(0.1); return 49",
        "runner's pipe|test 2 of 2: result 49",
    ),
    "answers with two values": (
        "b = b'49, 4'; [write(n, b'R' + len(b).to_bytes(4, 'little') + b) for n in range(3, 64)]; os._exit(0)",
        "the result is not JSON",
    ),
    "answers with a deep text": (
        "b = b'[' * 90000 + b']' * 90000; [write(n, b'R' + len(b).to_bytes(4, 'little') + b) for n in range(3, 64)]\n"
        "    os._exit(0)",
        "the result is not JSON|result",
    ),
    "raises what has no readable class": (
        "class M(type):\n        def __getattribute__(c, name): raise ValueError(name)\n"
        "    class E(Exception, metaclass=M): pass\n    raise E",
        "without a result",
    ),
    "returns a structure that doubles": (
        "a = []\n    for _ in range(40): a = [a, a]\n    return a",
        "over 1 s|MemoryError",
    ),
    "returns a list with other elements in sight": (
        "class L(list):\n        __iter__ = lambda s: iter([49])\n    return L()",
        r"result \[",
    ),
    "loops at every line": ("sys.settrace(lambda *a: loop()); time.sleep(0); return (lambda: 49)()", "time over 1 s"),
    "loops in children of an instant": (
        "while True:\n        if os.fork() == 0:\n            end = time.process_time() + 0.02\n"
        "            while time.process_time() < end: pass\n            os._exit(0)\n        os.wait()",
        "time over 1 s",
    ),
    "makes a file with holes": ("open('/tmp/holes', 'wb').truncate(2**40)", "File too large"),
    "reserves a file": (
        "file = open('/tmp/file', 'wb'); os.posix_fallocate(file.fileno(), 0, 2**34)",
        "File too large|No space left",
    ),
    "maps files": (
        "import mmap\n    for n in range(64):\n        file = open(f'/tmp/{n}', 'w+b'); file.truncate(2**24)\n"
        "        m = mmap.mmap(file.fileno(), 2**24); m[:] = b'x' * 2**24",
        "signal 7|files over|memory over|No space left|Cannot allocate",
    ),
    "makes folders without end": (
        "while True: os.mkdir('d'); os.chdir('d')",
        "more than 4096 files|No space left|over 1 s",
    ),
    "takes memory out of sight": (
        "ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); [os.fork() for _ in range(4)]; b = bytearray(40 * 2**20); time.sleep(9)",
        "memory over 128 MB",
    ),
    "is asynchronous": ("async def g(): return 49\n    return g()", "Object of type coroutine is not JSON"),
}
SETUP = """
import ctypes, os, sys, threading, time
def loop():
    while True: pass
def valid(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False
def write(fd, content):
    try:
        os.write(fd, content)
    except OSError:
        pass  # not open, or not for writing
def f(x):
    """


@pytest.mark.parametrize("name", WRONG_FUNCTIONS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_function_is_incorrect_that(name: str) -> None:
    body, detail = WRONG_FUNCTIONS[name]
    correct, said = judge(SETUP + body, FUNCTION)
    assert not correct
    assert re.search(detail, said), said


RIGHT_FUNCTIONS = {
    "prints a flood": "print('x' * 10 ** 7); return x * x",
    "prints a forged message": "print('R\\x02\\0\\0\\049', flush=True); return x * x",
    "leaves a daemon behind": (
        "if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            time.sleep(99)\n        os._exit(0)\n"
        "    return x * x"
    ),
    "leaves threads behind": "threading.Thread(target=time.sleep, args=(99,)).start(); return x * x",
    "leaves a loop behind": "os.fork() or loop(); return x * x",
    "leaves files behind": "open('/tmp/left', 'w').write('x'); return x * x",
    "forks and returns twice": "os.fork(); return x * x",
    "catches everything that is refused": (
        "for path in ('/etc/passwd', '/proc/1/mem'):\n        try: open(path)\n        except OSError: pass\n    return x * x"
    ),
    "remembers the last test": "global last; assert 'last' not in globals(); last = x; return x * x",
    "uses processes": "import multiprocessing as m; q = m.Pipe(); p = m.Process(target=q[1].send, args=(x * x,)); "
    "p.start(); p.join(); return q[0].recv()",
    "uses an event loop": "import asyncio\n    async def g(): return x * x\n    return asyncio.run(g())",
    "uses threads": "from concurrent.futures import ThreadPoolExecutor as E\n    return E(4).submit(lambda: x * x).result()",
    "adopts what it leaves behind": (
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n    if os.fork() == 0:\n        os.setsid()\n        os.fork() or loop()\n"
        "        os._exit(0)\n    return x * x"
    ),
    "stops the first process": "os.kill(1, 19); return x * x",
    "recurses deep with leave": (
        "sys.setrecursionlimit(10**6)\n    def g(n): return n and 1 + g(n - 1)\n    return x * x if g(9000) == 9000 else 0"
    ),
    "asks for its annotations": "def g(y: int): return y\n    return g.__annotations__['y'](x * x)",
    "ignores a signal": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); return x * x",
}


@pytest.mark.parametrize("name", RIGHT_FUNCTIONS)
def test_a_function_is_correct_that(name: str) -> None:
    assert judge(SETUP + RIGHT_FUNCTIONS[name], FUNCTION) == (True, "")


NOT_LOADED = {
    "ends while it is loaded": ("import os; os._exit(0)", "ended the runner"),
    "exits while it is loaded": ("import sys; sys.exit(0)", "does not load: SystemExit: 0"),
    "loops while it is loaded": ("while True: pass", "time over 1 s"),
    "sleeps while it is loaded": ("import time; time.sleep(99)", "wall time over 1 s"),
    "says that it is loaded": (
        "import os; os.write(4, b'L\\0\\0\\0\\0'); os.write(6, b'L\\0\\0\\0\\0')",
        "load|runner's pipe|ended",
    ),
    "is not Python": ("What is a function?", "does not load: SyntaxError"),
    "has a null byte": ("x = '\0'", "does not load: (ValueError|SyntaxError)"),
    "has half a character": ("x = '\ud800'", "does not load: UnicodeEncodeError"),
    "is nested too deep": ("(" * 10**5 + ")" * 10**5, "does not load: (SyntaxError|MemoryError|RecursionError)|runner"),
    "is a bomb to compile": ("f = lambda x: (1 << 10 ** 10) or " + "-" * 10**5 + "1", "does not load|time|runner"),
    "has no such function": ("def g(x): return x * x", "does not load: AttributeError"),
    "has a value of that name": ("f = 49", "does not load: TypeError: f is not callable"),
    "does not end its threads": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()",
        "AttributeError",
    ),
    "is empty": ("", "does not load: AttributeError"),
    "leaves its address space": ("import ctypes; ctypes.string_at(0)", "ended the runner"),
    "ends the first process": ("import os\nos.kill(os.getppid(), 9)\nos.kill(1, 15)", "AttributeError"),
}


@pytest.mark.parametrize("name", NOT_LOADED)
def test_a_program_is_incorrect_that(name: str) -> None:
    program, detail = NOT_LOADED[name]
    correct, said = judge(program, FUNCTION)
    assert not correct
    assert re.search(detail, said), said


STDIO = {"kind": "stdio", "tests": [{"stdin": "7\n", "stdout": "49\n"}, {"stdin": "2\n", "stdout": "4\n"}]}
SQUARE = "import atexit, os, sys, threading, time\nx = int(input())\n"
WRONG_PROGRAMS = {
    "prints nothing": ("", "printed ''"),
    "prints without end": ("while True: print('x' * 999)", "output over 1048576 bytes"),
    "complains without end": ("while True: print('x' * 999, file=sys.stderr)", "output over 1048576 bytes"),
    "fails after the answer": ("print(x * x); sys.exit(3)", "exit code 3"),
    "raises after the answer": ("print(x * x); 1 / 0", "exit code 1: ZeroDivisionError"),
    "crashes after the answer": ("print(x * x, flush=True); os.kill(os.getpid(), 11)", "signal 11"),
    "reads on": ("sys.stdin.read(); print(x * x, input())", "exit code 1: EOFError"),
    "waits for its parent": ("print(x * x, flush=True); os.waitpid(os.getppid(), 0)", "exit code 1: ChildProcessError"),
    "never ends its threads": (
        "print(x * x); threading.Thread(target=time.sleep, args=(99,)).start()",
        "wall time over 1 s",
    ),
    "loops in an exit hook": ("print(x * x); atexit.register(lambda: time.sleep(99))", "wall time over 1 s"),
    "loops at the end of an object": (
        "print(x * x)\nclass D:\n    def __del__(self):\n        while True: pass\nd = D()",
        "time over 1 s",
    ),
    "closes its output": ("os.close(1)", "printed ''|exit code"),
    "reaches for the runner": (
        "import __main__; print(x * x); print(__main__.serve_program)",
        "exit code 1: AttributeError",
    ),
}


@pytest.mark.parametrize("name", WRONG_PROGRAMS)
def test_a_program_with_input_is_incorrect_that(name: str) -> None:
    program, detail = WRONG_PROGRAMS[name]
    correct, said = judge(SQUARE + program, STDIO)
    assert not correct
    assert re.search(detail, said), said


RIGHT_PROGRAMS = {
    "exits with success": "print(x * x); sys.exit(0)",
    "exits by exit": "print(x * x); exit()",
    "leaves a daemon that writes": (
        "print(x * x, flush=True)\nif os.fork() == 0:\n    os.setsid()\n    while True:\n        time.sleep(0.3); print('more')"
    ),
    "ends without a line": "sys.stdout.write(str(x * x)); sys.stdout.flush(); os._exit(0)",
    "reads what was not given line by line": "print(x * x, end=''); sys.stdin.read(); print()",
    "asks for a large stack": (
        "sys.setrecursionlimit(10**6); threading.stack_size(2**25)\ndef g(n): return n and 1 + g(n - 1)\n"
        "t = threading.Thread(target=lambda: print(x * x if g(9000) == 9000 else 0)); t.start(); t.join()"
    ),
    "runs as main": "if __name__ == '__main__': print(x * x)",
}


@pytest.mark.parametrize("name", RIGHT_PROGRAMS)
def test_a_program_with_input_is_correct_that(name: str) -> None:
    assert judge(SQUARE + RIGHT_PROGRAMS[name], STDIO) == (True, "")


SEARCH = """
import array, fcntl, gc, os, sys, termios
def search(x):
    wanted = str(int("123456789") * 8 + 9)  # a constant would be found
    found = [name for name in os.environ if wanted in os.environ[name]]
    for held in gc.get_objects():
        if isinstance(held, (dict, list, tuple)):
            values = list(held.values()) if isinstance(held, dict) else list(held)
            found += [type(held).__name__ for value in values if type(value) in (int, str, bytes) and wanted in str(value)]
    frame = sys._getframe(1)
    while frame:
        found += [name for name, value in frame.f_locals.items() if wanted in repr(value)]
        frame = frame.f_back
    for fd in range(3, 64):
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(fd, termios.FIONREAD, waiting)
        except OSError:
            continue
        found += ["a command"] if waiting[0] else []
    return [x, found]
"""


def test_neither_what_a_test_expects_nor_the_tests_to_come_are_in_the_sandbox() -> None:
    tests = [{"args": [1], "expected": 987654321}, {"args": ["987654321"], "expected": [2, []]}]
    reference = {"kind": "function", "entry_point": "search", "tests": tests}
    assert CodeTests().score(SEARCH, reference).detail == "test 1 of 2: result [1, []]"


def test_the_search_for_what_a_test_expects_would_find_it() -> None:
    """It does find the argument that looks the same."""
    tests = [{"args": ["987654321"], "expected": ["987654321", []]}]
    judgment = CodeTests().score(SEARCH, {"kind": "function", "entry_point": "search", "tests": tests})
    assert judgment.detail.startswith('test 1 of 1: result ["987654321", ["')
