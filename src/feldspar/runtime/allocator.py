"""Keeps the memory that the C library frees, so that each step does not ask the kernel again.

By default glibc returns every large tensor to the kernel when it is freed; the next step then
faults the same pages in anew. No effect with other C libraries.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""

KEEP_BYTES = 1 << 30
GROW_BYTES = 64 << 20


def keep_freed_pages() -> bool:
    """Have malloc take and keep memory in large pieces; whether the C library agreed."""
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
