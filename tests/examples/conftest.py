"""Fixtures of the tests of examples."""

import os
from typing import Any

import pytest


@pytest.fixture
def one_core() -> Any:
    """Leave one core, where that can be asked for: processes would import everything again."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)
