"""Extend the vocabulary of a model to that of an extended tokenizer.

The room ``adapt`` holds the arithmetic. This file prepares models, tokenizers and records for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from feldspar.adapt.donor import Donor
from feldspar.adapt.embeddings import MATRICES, Adaptation, NewTokens, adapt_embeddings
from feldspar.core.errors import UserError
from feldspar.core.files import digest_of, sha256_of_file
from feldspar.core.manifest import read_manifest
from feldspar.parametrization.tables import ForwardMultipliers, ParametrizationTable
from feldspar.plan.summary import Plan
from feldspar.recipe.sections.adapt import EmbeddingAdaptation
from feldspar.recipe.sections.start_from import StartFromHuggingFace, StartFromRun
from feldspar.runtime.checkpoint import KIND, Checkpoint
from feldspar.runtime.tensor_file import ReplacedTensors
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.contract import check_old_text, decompositions
from feldspar.tokens.tokenizer.declaration import Declaration
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.load import find_checkpoint, read_weights
from feldspar.train.run_tokenizer import run_tokenizer

ADAPTATION_KEY = "adaptation"
"""The key of the adaptation in a checkpoint's state."""


@dataclass(frozen=True)
class Source:
    """A model on disk: its weights under our names, and its tokenizer."""

    path: str
    state: Mapping[str, Tensor]
    tokenizer_folder: Path | None
    checkpoint: Checkpoint | None = None
    """The checkpoint, where the source is a run."""
    forward: ForwardMultipliers | None = None
    """The multipliers of the weights, where the source is no run."""
    reversible: str | None = None
    """The type of a reversible model; None: a plain decoder."""

    def digest(self) -> str:
        """Return the digest of the checkpoint's manifest, or of the content of the weights."""
        if self.checkpoint is not None:
            return read_manifest(self.checkpoint.folder, KIND).digest
        files = sorted(Path(self.path).glob("*.safetensors"))
        return digest_of(*map(sha256_of_file, files))


def read_source(
    settings: StartFromRun | StartFromHuggingFace, checkpoint: Checkpoint | None = None
) -> Source:
    """Read a run at its checkpoint, or another model, whose tensors are read when asked for.

    ``settings`` name the checkpoint unless it is given. Raises UserError where there is none.
    """
    path = Path(settings.path)
    if isinstance(settings, StartFromRun):
        checkpoint = checkpoint or find_checkpoint(path, settings.checkpoint)
        tokenizer = run_tokenizer(path, checkpoint)
        streams = checkpoint.recipe.values["model"].get("reversible") or {}
        weights = read_weights(checkpoint)
        return Source(settings.path, weights, tokenizer, checkpoint, reversible=streams.get("type"))
    from feldspar.huggingface.import_folder import import_model

    model = import_model(path)
    description = model.description
    return Source(
        settings.path,
        model.state,
        model.tokenizer_folder,
        forward=description.forward,
        reversible=getattr(description.settings.reversible, "type", None),
    )


def require_same_tokens(source: Source, shards: ShardSet) -> None:
    """Raise UserError when the shards were encoded with another tokenizer than the model's."""
    new = TextTokenizer.load(shards.tokenizer)
    old = _tokenizer(source, shards.end_of_document)
    if old.digest == new.digest:
        return
    _decomposed(old, new, source, shards.path)
    if new.vocab_size > old.vocab_size:
        raise UserError(
            f"start_from: the shards' tokenizer has {new.vocab_size - old.vocab_size:,} tokens "
            f"more than that of {source.path}",
            where=str(shards.path),
            do="set how their rows begin: adapt: {embeddings: {initialisation: subword_mean}}",
        )


def adapt_to_shards(
    weights: Mapping[str, Tensor], source: Source, plan: Plan, shards: ShardSet
) -> tuple[Mapping[str, Tensor], Adaptation]:
    """Return ``weights`` with rows for the tokens that the shards' tokenizer adds to the source's.

    Raises UserError where it does not extend it, and as ``adapt_embeddings``.
    """
    recipe = plan.recipe
    assert recipe.adapt is not None and recipe.model.vocab_size is not None, "the caller looked"
    new = TextTokenizer.load(shards.tokenizer)
    rows, settings = recipe.model.vocab_size, recipe.adapt.embeddings
    return adapt_to_tokenizer(
        weights, source, new, shards.path, rows, settings, plan.table, recipe.seed
    )


def adapt_to_tokenizer(
    weights: Mapping[str, Tensor],
    source: Source,
    new: TextTokenizer,
    place: Path,
    rows: int,
    settings: EmbeddingAdaptation,
    table: ParametrizationTable,
    seed: int,
) -> tuple[Mapping[str, Tensor], Adaptation]:
    """Return ``weights`` with ``rows`` rows, for the tokens that ``new`` adds to the source's.

    ``new`` lies in the folder ``place``. ``table`` gives the standard deviation of random rows.
    Raises UserError where ``new`` does not extend the source's tokenizer, and as
    ``adapt_embeddings``.
    """
    old = _tokenizer(source, new.end_of_document)
    decomposed = _decomposed(old, new, source, place)
    tokens = NewTokens(_pieces(old, 0), _pieces(new, old.vocab_size), decomposed)
    origins = {"base": source.digest(), "base_tokenizer": old.digest, "tokenizer": new.digest}
    donor = None
    if settings.donor is not None:
        lender = read_source(settings.donor)
        donor = _donor(lender, _tokenizer(lender, new.end_of_document))
        origins["donor"] = lender.digest()
    std = {entry.name: entry.init_std for entry in table.tensors}
    matrices, done = adapt_embeddings(weights, tokens, rows, settings, std, seed, donor)
    done.origins = origins
    return ReplacedTensors(weights, matrices), done


def _decomposed(
    old: TextTokenizer, new: TextTokenizer, source: Source, place: Path
) -> list[list[int]]:
    """Return each new token as a list of old tokens. Raises UserError where old tokens changed, or
    the ids of old text."""
    try:
        decomposed = decompositions(old, new)
        check_old_text(old, new)
        return decomposed
    except UserError as error:
        raise UserError(
            f"start_from: the new tokenizer is another than that of {source.path}: {error.what}",
            where=str(place),
            do="use the model's own tokenizer, or one that extends it",
        ) from error


def _donor(source: Source, tokenizer: TextTokenizer) -> Donor:
    pieces = enumerate(_pieces(tokenizer, 0))
    matrices = {name: source.state[name] for name in MATRICES if name in source.state}
    return Donor({piece: place for place, piece in pieces if piece}, matrices, source.path)


def _tokenizer(source: Source, end_of_document: str) -> TextTokenizer:
    folder = source.tokenizer_folder
    if folder is None:
        raise UserError(
            f"{source.path} holds no tokenizer.json: the tokens of its rows are unknown",
            do="put the tokenizer that the model was trained with into the folder",
        )
    # A plain folder may not say what ends a document; an extended tokenizer kept its tokens.
    return TextTokenizer.load(folder, Declaration.read(folder).end_of_document or end_of_document)


def _pieces(tokenizer: TextTokenizer, first: int) -> list[str]:
    """Return the strings of the tokens from id ``first`` on; empty for an unused id."""
    return [tokenizer.piece(token) or "" for token in range(first, tokenizer.vocab_size)]
