"""Limits that Linux itself enforces on a process: no new processes, no sockets, no writes outside.

Loaded by `sandboxed_child` in the process that is limited, so it imports nothing of feldspar. Both
limits need no privilege, hold for root too, and cannot be lifted again:

* seccomp: system calls that start processes or threads, open sockets, signal or inspect other
  processes, or change rights, owners and limits fail with "Operation not permitted".
* Landlock (Linux 5.13): files are written, made and removed only beneath one folder.
"""

import ctypes
import os
import platform
import struct
import sys

# Numbers of system calls: of x86-64, and of the table that aarch64 uses (None: it has no such one).
CALLS: dict[str, tuple[int, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "execve": (59, 221),
    "execveat": (322, 281),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "io_uring_setup": (425, 425),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "setsid": (112, 157),
    "setns": (308, 268),
    "unshare": (272, 97),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "fsopen": (430, 430),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "swapon": (167, 224),
}
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Audit number of each architecture, and its column in ``CALLS``."""
X32_BIT = 0x40000000
"""System calls of x86-64's second interface, whose numbers are others."""

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER_OFFSET, ARCHITECTURE_OFFSET = 0, 4
ALLOW, KILL, NOT_PERMITTED = 0x7FFF0000, 0x80000000, 0x00050001

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH = 1, 1
WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 1, 1 << 4, 1 << 5, 1 << 7, 1 << 8
MAKE_OTHER = (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12)
REFER, TRUNCATE = 1 << 13, 1 << 14
"""Rights of the second and the third version of Landlock."""


def limit_by_kernel(folder: str) -> bool:
    """Apply both limits to this process; files are written beneath ``folder`` only.

    Returns False where the system lacks one of them; the other may then be in force.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return _restrict_files(libc, folder) & _restrict_calls(libc)


def _restrict_calls(libc: ctypes.CDLL) -> bool:
    found = ARCHITECTURES.get(platform.machine())
    if found is None or sys.maxsize < 2**32:
        return False
    architecture, column = found
    numbers = [number for call in CALLS.values() if (number := call[column]) is not None]
    tests = [(JUMP_IF_EQUAL, number) for number in numbers]
    if column == 0:
        tests.append((JUMP_IF_AT_LEAST, X32_BIT))
    program = [
        (LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (JUMP_IF_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_OFFSET),
        # A test that holds jumps over the tests after it and over ALLOW.
        *((code, len(tests) - place, 0, value) for place, (code, value) in enumerate(tests)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, NOT_PERMITTED),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    described = ctypes.create_string_buffer(
        struct.pack("@HP", len(program), ctypes.addressof(code))
    )
    return libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0) == 0


def _restrict_files(libc: ctypes.CDLL, folder: str) -> bool:
    version = libc.syscall(
        LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION
    )
    if version < 1:
        return False
    inside = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG
    inside |= (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    handled = struct.pack("=Q", inside | MAKE_OTHER)
    ruleset = libc.syscall(
        LANDLOCK_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), ctypes.c_uint(0)
    )
    if ruleset < 0:
        return False
    done = True
    for path, rights in ((folder, inside), (os.devnull, WRITE_FILE)):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, place)
        done &= not libc.syscall(
            LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, ctypes.c_uint(0)
        )
        os.close(place)
    done &= not libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint(0))
    os.close(ruleset)
    return done
