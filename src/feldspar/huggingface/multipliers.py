"""Express a model under other forward multipliers, with weights that compute the same logits.

Each multiplier goes into the last tensors before the place where the decoder applies it:

* embedding: the embedding tables; with a norm of the embeddings, its gain and bias.
* attention: the key rows; with norms of queries and keys, gain and bias of the norm of keys, since
  a norm undoes what scales its input.
* residual: the matrices that write the residual stream, and their biases; with norms after the
  branches, their gains and biases.
* output: the head.

ALiBi and rotary positions stay as they are: ALiBi is added after the scaling, and a rotation
commutes with it. So do soft caps, which come after the multiplication. To *fold* a model is to
express it under the multipliers of a plain one, so that common classes compute its logits.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.model.layers import SOFT_PROMPT
from feldspar.parametrization.tables import ForwardMultipliers
from feldspar.recipe.sections.model import ModelSettings
from feldspar.runtime.tensor_file import LazyTensors, TensorHeader, header_of

EMBEDDING = "token_embedding.weight"
TABLES = (EMBEDDING, "position_embedding.weight", SOFT_PROMPT)
HEAD = "output.weight"
KEY_ROWS = "attention.query_key_value"
KEY_NORM = "attention.key_norm"
SPARSE_MAP_ENDS = re.compile(r"\.(v|w|branches\.\d+)$")
"""Ends of the names of modules that write the output of a map of Sparse-IFT."""
OUTPUTS = ("attention.output", "feed_forward.output")
OUTPUT_NORMS = ("attention_output_norm", "feed_forward_output_norm")


def plain_multipliers(settings: ModelSettings) -> ForwardMultipliers:
    """Return the multipliers of a plain model: scores divided by sqrt(head_dim), nothing else."""
    return ForwardMultipliers(1.0, 1.0, 1 / math.sqrt(settings.head_width), 1.0)


def same_multipliers(one: ForwardMultipliers, other: ForwardMultipliers) -> bool:
    """Tell whether two sets of multipliers are equal up to rounding."""
    return all(_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))


def settings_under(
    settings: ModelSettings, old: ForwardMultipliers, new: ForwardMultipliers
) -> ModelSettings:
    """Return the settings of a model after the change of its multipliers.

    A tied head comes untied unless the factors of the embedding table and of the head stay.
    """
    if not settings.tied_embeddings:
        return settings
    stays = all(_factors(name, settings, old, new) is None for name in (EMBEDDING, HEAD))
    return settings if stays else settings.model_copy(update={"tied_embeddings": False})


class WithMultipliers(LazyTensors):
    """Tensors that compute, under ``new`` multipliers, what ``state`` computes under ``old`` ones.

    ``settings`` are those of the result. A tensor whose multiplier stays keeps every bit; others
    are computed in float32 at least. The result may be tied only where the head and the embedding
    are equal under the new multipliers, and UserError is raised where they are not, and for
    multipliers that are not finite or are 0.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        settings: ModelSettings,
        old: ForwardMultipliers,
        new: ForwardMultipliers,
    ) -> None:
        _check_multipliers(old)
        _check_multipliers(new)
        self._state, self._settings, self._old, self._new = state, settings, old, new
        self._names = [name for name in state if name != HEAD or not settings.tied_embeddings]
        if settings.tied_embeddings:
            self._require_tied()
        elif HEAD not in state:
            self._names.append(HEAD)

    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor."""
        header = header_of(self._state, self._stored(name))
        if self._factors(name) is None:
            return header
        return TensorHeader(header.shape, torch.promote_types(header.dtype, torch.float32))

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor; one that does not change may share its memory with the source."""
        return self._converted(name, self._state[self._stored(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _stored(self, name: str) -> str:
        return EMBEDDING if name == HEAD and HEAD not in self._state else name

    @torch.no_grad()
    def _converted(self, name: str, tensor: Tensor) -> Tensor:
        factors = self._factors(name)
        if factors is None:
            return tensor
        changed = tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
        part = changed[self._rows(name)]
        if self._has_offset(name):
            part.add_(1).mul_(factors[0]).div_(factors[1]).sub_(1)
        else:
            part.mul_(factors[0]).div_(factors[1])
        return changed

    def _factors(self, name: str) -> tuple[float, float] | None:
        return _factors(name, self._settings, self._old, self._new)

    def _has_offset(self, name: str) -> bool:
        """Tell whether a tensor is a gain that is stored less 1."""
        return self._settings.norm.unit_offset and name.endswith("norm.weight")

    def _rows(self, name: str) -> slice:
        if not _module(name).endswith(KEY_ROWS):
            return slice(None)
        width = self._settings.head_width
        begin = self._settings.n_heads * width
        return slice(begin, begin + self._settings.kv_heads * width)

    def _require_tied(self) -> None:
        """Raise UserError unless head and embedding are equal under the new multipliers."""
        untied = HEAD in self._state
        if not untied and self._factors(EMBEDDING) is None and self._factors(HEAD) is None:
            return
        if not torch.allclose(
            self._converted(HEAD, self._state[self._stored(HEAD)]).float(),
            self._converted(EMBEDDING, self._state[EMBEDDING]).float(),
            rtol=1e-5,
            atol=1e-8,
        ):
            raise UserError(
                "model.tied_embeddings: the head is not proportional to the embedding, so the two "
                "cannot be tied",
                do="set model.tied_embeddings: false",
            )


def _factors(
    name: str, settings: ModelSettings, old: ForwardMultipliers, new: ForwardMultipliers
) -> tuple[float, float] | None:
    """Return the factors that a tensor is multiplied and divided by; None where it stays."""
    kind = _multiplier_of(name, settings)
    if kind is None or _equal(getattr(old, kind), getattr(new, kind)):
        return None
    # Both are divided by the plain multiplier of scores, so that folding is one multiplication.
    plain = getattr(plain_multipliers(settings), kind)
    return getattr(old, kind) / plain, getattr(new, kind) / plain


def _multiplier_of(name: str, settings: ModelSettings) -> str | None:
    """Return the name of the multiplier that a tensor takes."""
    if name == HEAD:
        return "output"
    module = _module(name)
    if settings.embedding_norm and module == "embedding_norm":
        return "embedding"
    if name in TABLES:
        return None if settings.embedding_norm else "embedding"
    if module.endswith(KEY_ROWS if settings.query_key_norm == "none" else KEY_NORM):
        return "attention"
    outputs = OUTPUTS if settings.norm.place == "before" else OUTPUT_NORMS
    return "residual" if module.endswith(outputs) else None


def _module(name: str) -> str:
    """Return the name of the module whose output a tensor makes.

    In Sparse-IFT's maps these are the last tensors: those of all branches, or v, or w and v. What
    multiplies a branch multiplies its output, because its nonlinearity has two slopes.
    """
    return SPARSE_MAP_ENDS.sub("", name.rpartition(".")[0])


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-12)


def _check_multipliers(forward: ForwardMultipliers) -> None:
    for part in fields(forward):
        value = getattr(forward, part.name)
        if not math.isfinite(value) or value == 0:
            raise UserError(f"the {part.name} multiplier must be finite and not 0", found=value)
