"""Classes that transformers lacks, by their formulas, called as its classes are."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.huggingface.import_folder import import_model
from tests.huggingface.architectures.comparison import LENGTH, Case
from tests.huggingface.architectures.family import Family
from tests.huggingface.test_cerebras import CASES, folder_of, reference_logits

FORMULAS = {
    name: [case for case in CASES if case.split()[0] == name]
    for name in ("btlm", "jais", "crystalcoder", "cerebras-gpt")
}
"""The variants of each class."""


class Formulas:
    """The formulas with the tensors of a folder."""

    def __init__(self, configuration: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._configuration = configuration
        self._tensors = {name: tensor.requires_grad_() for name, tensor in tensors.items()}

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """Return the tensors by name."""
        return self._tensors.items()

    def __call__(self, tokens: Tensor, labels: Tensor | None = None) -> SimpleNamespace:
        """Return logits (b, t, vocabulary), and the mean loss where ``labels`` are given."""
        logits = reference_logits(self._configuration, self._tensors, tokens)
        if labels is None:
            return SimpleNamespace(logits=logits)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(logits=logits, loss=loss)


def make_formula_case(name: str, folder: Path) -> Case:
    """Write a random model of one variant and import it."""
    reference = Formulas(*folder_of(name, folder))
    imported = import_model(folder)
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(48, (2, LENGTH), generator=draw)
    family = Family(name.split()[0], {}, {})
    return Case(family, reference, folder, imported, imported.decoder().eval(), tokens)
