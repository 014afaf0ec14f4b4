"""The one place that chooses between compiled kernels (numba) and numpy.

Kernels are used where numba can be imported. numba's own variable NUMBA_DISABLE_JIT=1 turns it off,
and with it the kernels: both ways give the same bits, which is how tests compare them.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

_VARIABLE = "NUMBA_DISABLE_JIT"
_OFF_AT_START = os.environ.get(_VARIABLE, "0") != "0"
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled() -> bool:
    """Tell whether the compiled kernels of this package are to be used."""
    off = _OFF_AT_START or os.environ.get(_VARIABLE, "0") != "0"
    return _installed() and not off


def kernel(function: Function) -> Function:
    """Compile ``function`` at its first call, and cache it on disk where possible.

    The function itself where there are no kernels: its module can still be imported.
    """
    if not compiled():
        return function
    import numba

    try:
        return cast(Function, numba.njit(cache=True)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(Function, numba.njit(function))


@cache
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None
