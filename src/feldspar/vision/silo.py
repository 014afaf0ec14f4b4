"""The reversible blocks of a RevBiFPN: couplings within streams, RevSilo between them."""

from torch import nn

from feldspar.reversible.block import ReversibleBlock
from feldspar.reversible.steps import Part, Step
from feldspar.vision.bottleneck import InvertedBottleneck
from feldspar.vision.layout import Coupling, Fusion, Silo


def residual_layer(
    couplings: tuple[Coupling, ...], channels: tuple[int, ...], fixed_point_bits: int | None = None
) -> ReversibleBlock:
    """Build ``b += first(a); a += second(b)`` on the halves (a, b) of each stream."""
    steps: list[Step] = []
    functions: dict[str, nn.Module] = {}
    for coupling in couplings:
        stream, middle = coupling.stream, channels[coupling.stream] // 2
        a, b = Part(stream, 0, middle), Part(stream, middle)
        first, second = f"first_{stream}", f"second_{stream}"
        steps += [Step(first, (a,), b), Step(second, (b,), a)]
        functions[first] = InvertedBottleneck(coupling.first)
        functions[second] = InvertedBottleneck(coupling.second)
    return ReversibleBlock(len(couplings), steps, functions, fixed_point_bits)


def reversible_silo(silo: Silo, fixed_point_bits: int | None = None) -> ReversibleBlock:
    """Build a silo: down, ``x_j += D_ij(x_i)``, i < j, then up, ``x_i += U_ji(x_j)``, j > i.

    A new stream has no residual term: its first branch creates it, and the inverse drops it
    (2206.14098, section 3).
    """
    steps: list[Step] = []
    functions: dict[str, nn.Module] = {}
    n_present = silo.n_inputs
    for direction, fusions in (("down", silo.down), ("up", silo.up)):
        for fusion in fusions:
            name = f"{direction}_{fusion.source}_{fusion.target}"
            steps.append(_step(name, fusion, creates=fusion.target == n_present))
            n_present = max(n_present, fusion.target + 1)
            functions[name] = InvertedBottleneck(fusion.branch)
    return ReversibleBlock(silo.n_inputs, steps, functions, fixed_point_bits)


def _step(name: str, fusion: Fusion, creates: bool) -> Step:
    return Step(name, (Part(fusion.source),), Part(fusion.target), creates)
