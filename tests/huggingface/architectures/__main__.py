"""Measure every architecture and print the table of docs/methods/open-models.md."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from feldspar.huggingface.register import register_with_transformers
from tests.huggingface.architectures.comparison import (
    compare_decoding,
    compare_logits,
    compare_training,
    export_again,
    make_case,
    same_tensors,
)
from tests.huggingface.architectures.family import Family, all_families

HEADER = (
    "architecture",
    "import",
    "logits error",
    "cached decoding",
    "training step",
    "export back bit-equal",
)


def table() -> str:
    """Return a Markdown table with a row for each architecture.

    Errors are the largest over all variants, relative to the largest entry of transformers'
    tensor. A training step counts its loss and its gradients.
    """
    rows = [row(name, family) for name, family in all_families().items()]
    return "\n".join(map(_line, [HEADER, ["---"] * len(HEADER), *rows]))


def row(name: str, family: Family) -> list[str]:
    """Return the cells of an architecture."""
    logits, decoding, training, exported = 0.0, 0.0, 0.0, True
    for changes in family.variants.values():
        with TemporaryDirectory() as place:
            case = make_case(family, changes, Path(place, "given"))
            logits = max(logits, compare_logits(case).error)
            decoding = max(decoding, compare_decoding(case).error)
            training = max(training, *(compared.error for compared in compare_training(case)))
            export_again(case, Path(place, "back"))
            exported &= same_tensors(case.folder, Path(place, "back"))
    errors = [f"{error:.0e}" for error in (logits, decoding, training)]
    return [f"`{name}`", f"{len(family.variants)} variants", *errors, "yes" if exported else "no"]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    register_with_transformers()
    print(table())
