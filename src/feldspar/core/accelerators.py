"""Peak rate and memory of accelerators, by their makers' data sheets."""

from dataclasses import dataclass

from feldspar.core.errors import UserError, nearest


@dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator."""

    name: str
    bfloat16_flops: float
    """Dense bfloat16 tensor-core operations per second."""
    memory_bytes: float
    """Memory of the device."""


ACCELERATORS = (
    Accelerator("A100 40GB", 312e12, 40e9),
    Accelerator("A100", 312e12, 80e9),
    Accelerator("H100 PCIe", 756e12, 80e9),
    Accelerator("H100", 989e12, 80e9),
    Accelerator("H200", 989e12, 141e9),
)
"""Figures of NVIDIA's data sheets. Where several names fit a device, the first one counts."""


def accelerator_of(device_name: str) -> Accelerator | None:
    """Return the entry whose words all occur in a driver's name of a device, or None."""
    return next(
        (item for item in ACCELERATORS if all(word in device_name for word in item.name.split())),
        None,
    )


def accelerator_named(name: str) -> Accelerator:
    """Return the entry of that name, in any case of letters. Raises UserError for an
    unknown name.
    """
    known = {item.name.lower(): item for item in ACCELERATORS}
    if name.lower() not in known:
        hint = nearest(name.lower(), known)
        raise UserError(
            f"--device: {name!r} is not a known accelerator"
            + (f"; did you mean {known[hint].name}?" if hint else ""),
            allowed=(item.name for item in ACCELERATORS),
            do="choose a known one, or give --tokens-per-second",
        )
    return known[name.lower()]
