"""Measure every architecture and print the table of docs/methods/open-models.md."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from feldspar.huggingface.gguf.known_architectures import GGUF_ARCHITECTURES
from feldspar.huggingface.register import register_with_transformers
from tests.huggingface.architectures.comparison import (
    Case,
    compare_decoding,
    compare_logits,
    compare_training,
    export_again,
    make_case,
    same_tensors,
)
from tests.huggingface.architectures.family import all_families
from tests.huggingface.architectures.formulas import FORMULAS, make_formula_case

HEADER = (
    "architecture",
    "import",
    "logits error",
    "cached decoding",
    "training step",
    "export back bit-equal",
    "GGUF",
)
Make = Callable[[Path], Case]


def makers() -> dict[str, list[Make]]:
    """Return, for each architecture, a function for each variant that makes a random model."""
    found: dict[str, list[Make]] = {
        name: [partial(make_case, family, changes) for changes in family.variants.values()]
        for name, family in all_families().items()
    }
    return found | {
        name: [partial(make_formula_case, case) for case in cases]
        for name, cases in FORMULAS.items()
    }


def table_order() -> list[str]:
    """Return the architectures in the order of the table."""
    return sorted(makers())


def table() -> str:
    """Return a Markdown table with a row for each architecture.

    Errors are the largest over all variants, relative to the largest entry of the reference's
    tensor. A training step counts its loss and its gradients.
    """
    made = makers()
    rows = [row(name, made[name]) for name in table_order()]
    return "\n".join(map(_line, [HEADER, ["---"] * len(HEADER), *rows]))


def row(name: str, made: list[Make]) -> list[str]:
    """Return the cells of an architecture."""
    logits, decoding, training, exported = 0.0, 0.0, 0.0, True
    for make in made:
        with TemporaryDirectory() as place:
            case = make(Path(place, "given"))
            decoding = max(decoding, compare_decoding(case).error)
            logits = max(logits, compare_logits(case).error)
            training = max(training, *(compared.error for compared in compare_training(case)))
            export_again(case, Path(place, "back"))
            exported &= same_tensors(case.folder, Path(place, "back"))
    errors = [f"{error:.0e}" for error in (logits, decoding, training)]
    variants = f"{len(made)} variant" + "s" * (len(made) > 1)
    return [f"`{name}`", variants, *errors, "yes" if exported else "no", gguf_cell(name)]


def gguf_cell(name: str) -> str:
    """Say whether the architecture goes into a GGUF file and out of it."""
    return "yes" if name in {each.model_type for each in GGUF_ARCHITECTURES.values()} else "no"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    register_with_transformers()
    print(table())
