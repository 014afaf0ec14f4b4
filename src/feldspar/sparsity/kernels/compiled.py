"""Compile the products for this processor, once in a process, and run them on torch's threads."""

import ctypes
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from feldspar.sparsity.kernels.registers import Registers

WORKER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@dataclass(frozen=True)
class Compiled:
    """The products, compiled for ``registers``."""

    registers: Registers
    _engine: Any
    """Owns the code."""
    _threads: Any
    """OpenMP's library that torch has loaded. None: only one thread is used."""

    def run(self, name: str, arguments: Sequence[int]) -> None:
        """Call a product on all of torch's threads and wait for them.

        ``arguments`` are addresses and counts, as ``products`` lists them.
        """
        given = (ctypes.c_int64 * len(arguments))(*arguments)
        threads = torch.get_num_threads()
        if threads == 1 or self._threads is None:
            function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
            function(self._engine.get_function_address(name))(given, 0, 1)
            return
        address = self._engine.get_function_address(f"{name}_on_threads")
        self._threads.GOMP_parallel(WORKER(address), given, threads, 0)


@cache
def compiled() -> Compiled | None:
    """Return the products for this processor, compiled when they are first asked for.

    None where ``kernels_refusal`` gives a reason.
    """
    registers = this_processor()
    return compile_products(registers) if registers and kernels_refusal() is None else None


def kernels_refusal() -> str | None:
    """Return why this machine has no products of its processor, or None; compiles nothing."""
    if this_processor() is None:
        return "this processor has no vector instructions for sparse products"
    if find_spec("llvmlite") is None:
        return "the extra sparse (llvmlite) is not installed here"
    return None


def compile_products(registers: Registers) -> Compiled:
    """Compile the products; this needs llvmlite."""
    from llvmlite import binding

    from feldspar.sparsity.kernels.products import all_products

    threads = _openmp()
    if threads is not None:
        for name in ("omp_get_thread_num", "omp_get_num_threads"):
            binding.add_symbol(name, ctypes.cast(getattr(threads, name), ctypes.c_void_p).value)
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    triple = binding.get_default_triple()
    module = binding.parse_assembly(str(all_products(registers, triple, threads is not None)))
    module.verify()
    target = binding.Target.from_triple(triple).create_target_machine(
        cpu=registers.processor or binding.get_host_cpu_name(),
        features="" if registers.processor else binding.get_host_cpu_features().flatten(),
        opt=3,
    )
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False  # vectors are written out
    passes = binding.create_pass_builder(target, options)
    passes.getModulePassManager().run(module, passes)
    engine = binding.create_mcjit_compiler(module, target)
    engine.finalize_object()
    return Compiled(registers, engine, threads)


def this_processor() -> Registers | None:
    """Return the registers of this processor, as far as torch uses them too."""
    if platform.machine() in ("arm64", "aarch64"):
        return Registers(lanes=4, tile=16)
    return {
        "AVX512": Registers(lanes=16, tile=64),
        # Without the registers of AVX-512, which a processor may have although torch avoids them.
        "AVX2": Registers(lanes=8, tile=32, sums=8, processor="x86-64-v3"),
    }.get(torch.backends.cpu.get_cpu_capability())


def _openmp() -> ctypes.CDLL | None:
    """Return GNU's OpenMP, which torch has loaded on Linux; None elsewhere.

    Torch's own threads wait for work in a loop for a while, and would disturb other threads.
    """
    try:
        library = ctypes.CDLL("libgomp.so.1")
        library.GOMP_parallel.argtypes = [WORKER, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        library.GOMP_parallel.restype = None
    except (OSError, AttributeError):
        return None
    return library
