"""Keep memory that the C library frees, or return it to the kernel.

While a model is built, each tensor that was read is freed and never needed again: it is returned.
In training, glibc would by default return each large tensor to the kernel when it is freed, and the
next step would fault the same pages in again: it is kept. Other C libraries are not affected.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""

KEEP_BYTES = 1 << 30
GROW_BYTES = 64 << 20
RETURN_BYTES = 1 << 20


def return_freed_pages() -> bool:
    """Let malloc return tensors of 1 MB or more when they are freed; tell whether it agreed.

    By default, glibc begins to keep blocks of up to 32 MB once it has freed such a block.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, RETURN_BYTES))


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
