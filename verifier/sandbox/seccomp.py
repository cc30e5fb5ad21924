"""The system calls that graded code may not make, as a BPF program for `bwrap --seccomp`.

The list says what is refused rather than what is allowed, because other versions of the interpreter make other calls, and
the namespaces hold without it. It is a second wall in front of the kernel's less-travelled code, and it closes ways to
memory that no other limit counts (memfd, System V, message queues, extended attributes, sockets). A refused call gets EPERM;
a call newer than the list gets ENOSYS, as from an older kernel; a call of another architecture ends the process.
"""

import errno
import platform
import struct

# Name -> number on x86_64 and on aarch64; None where the architecture never had the call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    # sockets; socketpair stays for asyncio
    "socket": (41, 198),
    "bind": (49, 200),
    "connect": (42, 203),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # memory that belongs to no process
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semctl": (66, 191),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # large or old parts of the kernel that no program here needs
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "lookup_dcookie": (212, 18),
    "seccomp": (317, 277),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "vhangup": (153, 58),
    # the machine
    "acct": (163, 89),
    "reboot": (169, 142),
    "sync": (162, 81),
    "syncfs": (306, 267),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "ioperm": (173, None),
    "iopl": (172, None),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
}
NEWEST = 450  # call of both architectures when the list was made; the x32 calls of x86_64 are above it too
CLONE3 = 435  # its flags lie in memory, which BPF cannot read; libraries fall back to clone
# per architecture: AUDIT_ARCH, clone, socketpair, ioctl
ARCHITECTURES = {"x86_64": (0xC000003E, 56, 53, 16), "aarch64": (0xC00000B7, 220, 199, 29)}
NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
AF_UNIX = 1
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # typing into a terminal

LOAD, EQUAL, GREATER, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT, SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in struct seccomp_data


def filter_program(machine: str | None = None) -> bytes | None:
    """The program for a machine, this one by default; None if there is no list for it. machine: as platform.machine()."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        return None
    architecture, clone, socketpair, ioctl = ARCHITECTURES[machine]
    column = list(ARCHITECTURES).index(machine)
    refused = [numbers[column] for numbers in REFUSED.values() if numbers[column] is not None]
    eperm, enosys = _refuse(errno.EPERM), _refuse(errno.ENOSYS)
    return b"".join(
        [
            _load(ARCHITECTURE),
            *_when(EQUAL, architecture, [], otherwise=[_return(KILL)]),
            _load(NUMBER),
            *_when(GREATER, NEWEST, [enosys]),
            *_when(EQUAL, CLONE3, [enosys]),
            *(part for number in refused if number is not None for part in _when(EQUAL, number, [eperm])),
            *_when(EQUAL, clone, [_load(FIRST_ARGUMENT), *_when(ANY_BIT, NEW_NAMESPACES, [eperm]), _return(ALLOW)]),
            *_when(EQUAL, socketpair, [_load(FIRST_ARGUMENT), *_when(EQUAL, AF_UNIX, [_return(ALLOW)]), eperm]),
            *_when(
                EQUAL,
                ioctl,
                [
                    _load(SECOND_ARGUMENT),
                    *_when(EQUAL, TIOCSTI, [eperm]),
                    *_when(EQUAL, TIOCLINUX, [eperm]),
                    _return(ALLOW),
                ],
            ),
            _return(ALLOW),
        ]
    )


def _instruction(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def _load(offset: int) -> bytes:
    return _instruction(LOAD, 0, 0, offset)


def _return(action: int) -> bytes:
    return _instruction(RETURN, 0, 0, action)


def _refuse(error: int) -> bytes:
    return _return(REFUSE | error)


def _when(comparison: int, operand: int, then: list[bytes], otherwise: list[bytes] | None = None) -> list[bytes]:
    """Run `then` if the comparison holds, or else `otherwise`. One of them is given; what does not return goes on behind it."""
    if otherwise is not None:
        return [_instruction(comparison, len(otherwise), 0, operand), *otherwise]
    return [_instruction(comparison, 0, len(then), operand), *then]
