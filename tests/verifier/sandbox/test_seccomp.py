import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.sandbox import seccomp

ALLOWED = "allowed"
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def decide(program: bytes, architecture: int, number: int, first: int = 0, second: int = 0) -> str:
    """What the kernel would do: the few instructions of BPF that the program is made of."""
    call = struct.pack("=IIQQQ", number, architecture, 0, first, second)
    position, value = 0, 0
    while True:
        code, if_true, if_false, operand = struct.unpack_from("=HBBI", program, 8 * position)
        position += 1
        if code == seccomp.LOAD:
            (value,) = struct.unpack_from("=I", call, operand)
        elif code == seccomp.RETURN:
            if operand == seccomp.ALLOW:
                return ALLOWED
            return "killed" if operand == seccomp.KILL else errno.errorcode[operand & 0xFFFF]
        else:
            holds = {
                seccomp.EQUAL: value == operand,
                seccomp.GREATER: value > operand,
                seccomp.ANY_BIT: bool(value & operand),
            }[code]
            position += if_true if holds else if_false


def program_for(machine: str) -> bytes:
    program = seccomp.filter_program(machine)
    assert program is not None
    return program


@pytest.mark.parametrize("machine", MACHINES)
@given(number=st.integers(0, 2**32 - 1), first=st.integers(0, 2**64 - 1), second=st.integers(0, 2**64 - 1))
def test_every_call_gets_an_answer_and_no_later_one_is_allowed(
    machine: str, number: int, first: int, second: int
) -> None:
    answer = decide(program_for(machine), MACHINES[machine], number, first, second)
    if number > seccomp.NEWEST:
        assert answer == "ENOSYS"
    else:
        assert answer in (ALLOWED, "EPERM", "ENOSYS")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", seccomp.REFUSED)
def test_a_call_on_the_list_is_refused(machine: str, name: str) -> None:
    number = seccomp.REFUSED[name][list(MACHINES).index(machine)]
    if number is not None:
        assert decide(program_for(machine), MACHINES[machine], number) == "EPERM"


@pytest.mark.parametrize(
    ("machine", "number", "first", "second", "answer"),
    [
        ("x86_64", 0, 0, 0, ALLOWED),  # read
        ("x86_64", 59, 0, 0, ALLOWED),  # execve
        ("x86_64", 56, 0x01200011, 0, ALLOWED),  # fork
        ("x86_64", 56, 0x10000011, 0, "EPERM"),  # with CLONE_NEWUSER
        ("x86_64", 56, 0x40000011, 0, "EPERM"),  # with CLONE_NEWNET
        ("x86_64", 435, 0, 0, "ENOSYS"),
        ("x86_64", 53, 1, 0, ALLOWED),  # socketpair of AF_UNIX
        ("x86_64", 53, 2, 0, "EPERM"),
        ("x86_64", 16, 0, 0x5401, ALLOWED),  # isatty
        ("x86_64", 16, 0, 0x5412, "EPERM"),
        ("x86_64", 16, 0, 0xFFFFFFFF00005412, "EPERM"),  # the kernel looks at the lower half only
        ("aarch64", 63, 0, 0, ALLOWED),
        ("aarch64", 220, 0x01200011, 0, ALLOWED),
        ("aarch64", 220, 0x10000011, 0, "EPERM"),
        ("aarch64", 199, 1, 0, ALLOWED),
        ("aarch64", 199, 2, 0, "EPERM"),
        ("aarch64", 29, 0, 0x5412, "EPERM"),
    ],
)
def test_some_calls_are_refused_by_what_they_ask_for(
    machine: str, number: int, first: int, second: int, answer: str
) -> None:
    assert decide(program_for(machine), MACHINES[machine], number, first, second) == answer


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_architecture_end_the_process(machine: str) -> None:
    assert decide(program_for(machine), 0x40000003, 1) == "killed"


def test_there_is_no_program_for_other_machines() -> None:
    assert seccomp.filter_program("riscv64") is None
