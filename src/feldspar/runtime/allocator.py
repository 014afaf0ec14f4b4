"""Keep memory that the C library frees, so that each step need not ask the kernel for it again.

By default glibc returns each large tensor to the kernel when it is freed, and the next step faults
the same pages in again. Other C libraries are not affected.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""

KEEP_BYTES = 1 << 30
GROW_BYTES = 64 << 20


def keep_freed_pages() -> bool:
    """Let malloc allocate and keep memory in large pieces; return whether the C library agreed."""
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    answers = [
        library.mallopt(parameter, value)
        for parameter, value in (
            (M_MMAP_THRESHOLD, KEEP_BYTES),
            (M_TRIM_THRESHOLD, KEEP_BYTES),
            (M_TOP_PAD, GROW_BYTES),
        )
    ]
    return all(answers)
