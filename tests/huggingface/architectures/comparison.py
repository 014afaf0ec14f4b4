"""A random model of transformers beside the same model imported, and what is compared of both."""

import inspect
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from feldspar.huggingface.architectures import ARCHITECTURES
from feldspar.huggingface.export_folder import export_model
from feldspar.huggingface.import_folder import ImportedModel, import_model
from feldspar.model.context import KeyValueCache
from feldspar.model.decoder import Decoder
from tests.huggingface.architectures.family import Family
from tests.rounding import terms_of

LENGTH, PROMPT = 12, 5
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}


@dataclass(frozen=True)
class Compared:
    """Tensors of ours beside those of transformers, which only rounding may tell apart."""

    found: list[Tensor]
    expected: list[Tensor]
    terms: int
    """The number of terms behind one entry."""

    @property
    def scale(self) -> float:
        """The largest entry of transformers' tensors."""
        return max(float(tensor.abs().max()) for tensor in self.expected)

    @property
    def error(self) -> float:
        """The largest difference, relative to the largest entry."""
        pairs = zip(self.found, self.expected, strict=True)
        return max(float((one - other).abs().max()) for one, other in pairs) / self.scale


@dataclass(frozen=True)
class Case:
    """A model of transformers, the folder it was saved in, and our decoder read from there."""

    family: Family
    reference: Any
    """The model of transformers, or something that is called as one."""
    folder: Path
    imported: ImportedModel
    decoder: Decoder
    tokens: Tensor

    @property
    def terms(self) -> int:
        """The number of terms behind one number that comes out of the model."""
        return terms_of(self.decoder, self.tokens)


def save_reference(family: Family, changes: dict[str, Any], folder: Path) -> PreTrainedModel:
    """Return a model of transformers with random weights, saved in ``folder``."""
    keys = SPECIAL | family.configuration | changes
    configuration = AutoConfig.for_model(family.model_type, **keys)
    model = AutoModelForCausalLM.from_config(
        configuration, attn_implementation=family.attention
    ).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=draw)
            if parameter.ndim > 1:
                parameter.copy_(values / math.sqrt(parameter.shape[-1]))
            else:
                mean = family.mean_gain if name.endswith("weight") else 0.0
                parameter.copy_(mean + 0.3 * values)
    model.save_pretrained(folder)
    return model


def make_case(family: Family, changes: dict[str, Any], folder: Path) -> Case:
    """Save a random model and import it again."""
    reference = save_reference(family, changes, folder)
    imported = import_model(folder)
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(imported.settings.vocab_size or 0, (2, LENGTH), generator=draw)
    return Case(family, reference, folder, imported, imported.decoder().eval(), tokens)


@torch.no_grad()
def compare_logits(case: Case) -> Compared:
    """Compare the logits of whole sequences."""
    found = case.decoder.logits(case.decoder(case.tokens))
    return Compared([found], [case.reference(case.tokens).logits], case.terms)


@torch.no_grad()
def compare_decoding(case: Case) -> Compared:
    """Compare the logits of a prompt and then of one token after the other, both with a cache.

    The sequence ends with the trained context: beyond it, dynamic scaling of positions makes
    transformers keep keys that were rotated for a shorter sequence.
    """
    tokens = case.tokens[:, : case.decoder.settings.max_sequence_length]
    pieces = [tokens[:, :PROMPT], *tokens[:, PROMPT:].split(1, 1)]
    ours = KeyValueCache(case.decoder.settings, len(tokens), tokens.shape[1])
    found = [case.decoder.logits(case.decoder(piece, cache=ours)) for piece in pieces]
    return Compared(found, _decoded(case.reference, tokens, pieces), case.terms)


def _decoded(reference: Any, tokens: Tensor, pieces: list[Tensor]) -> list[Tensor]:
    """Return the reference's logits of the pieces, with a cache where it has one."""
    if not isinstance(reference, PreTrainedModel):
        return list(reference(tokens).logits.split([piece.shape[1] for piece in pieces], 1))
    names = inspect.signature(reference.forward).parameters
    name = "cache" if "cache" in names else "past_key_values"
    theirs = {name: DynamicCache(config=reference.config)}
    return [reference(piece, use_cache=True, **theirs).logits for piece in pieces]


def compare_training(case: Case) -> tuple[Compared, Compared]:
    """Compare the loss of one training step, and the gradients of all parameters."""
    labels = torch.cat([case.tokens[:, 1:], torch.full_like(case.tokens[:, :1], -100)], dim=1)
    loss, count = case.decoder.loss(case.tokens, labels)
    mean = loss / count
    ours = dict(case.decoder.named_parameters())
    found = torch.autograd.grad(mean, list(ours.values()))
    theirs = case.reference(case.tokens, labels=case.tokens).loss
    parameters = dict(case.reference.named_parameters())
    gradients = dict(
        zip(parameters, torch.autograd.grad(theirs, list(parameters.values())), strict=True)
    )
    for name, saved in case.family.saved_names.items():
        gradients[saved] = gradients.get(name)
    rules = adapter_of(case).tensor_rules(case.imported.settings)
    joined = {r.ours: r.layout.join([gradients[name] for name in r.theirs]) for r in rules}
    losses = Compared([mean.detach()], [theirs.detach()], case.terms)
    return losses, Compared(list(found), [joined[name] for name in ours], case.terms)


def adapter_of(case: Case) -> Any:
    """Return the adapter that read the case."""
    return ARCHITECTURES[case.imported.origin.architecture]


def export_again(case: Case, out: Path) -> None:
    """Export the imported model as the architecture that it came from."""
    architecture = case.imported.origin.architecture
    state, description = case.imported.state, case.imported.description
    export_model(state, description, None, out, architecture, dtype=None)


def same_tensors(one: Path, other: Path) -> bool:
    """Tell whether two folders hold tensors of the same names, types and bits."""
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name])
        for name in first
    )


def read_configuration(folder: Path) -> dict[str, Any]:
    """Return the ``config.json`` of a folder."""
    return json.loads((folder / "config.json").read_text())
