"""Make the tokenizer of a recipe: train it on documents, extend one, or read it from files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from feldspar.core.artifact import Wanted, finish_artifact, open_artifact, require_writable
from feldspar.core.errors import UserError
from feldspar.core.files import digest_of, new_folder
from feldspar.core.progress import progress
from feldspar.core.streams import hash_integers, stream_seed
from feldspar.recipe.sections.tokens import BpeFiles, ExtendTokenizer, TokenizerSettings, TrainBpe
from feldspar.tokens.tokenizer.begin_of_sequence import with_begin_of_sequence
from feldspar.tokens.tokenizer.bpe import read_bpe_files, train_bpe
from feldspar.tokens.tokenizer.declaration import Declaration
from feldspar.tokens.tokenizer.extend import (
    extend_tokenizer,
    probe_texts,
    target_sources,
)
from feldspar.tokens.tokenizer.text_tokenizer import TOKENIZER_FILE, TextTokenizer

TRAINING_SPLIT = "train"


def tokenizer_from_settings(
    settings: TokenizerSettings, documents: Path | None, seed: int
) -> TextTokenizer:
    """Train, extend or read the tokenizer; reading does not need ``documents``.

    Raises UserError if files are missing or a declared vocabulary size is wrong.
    """
    if isinstance(settings, TrainBpe):
        if documents is None:
            raise UserError("a tokenizer of type train_bpe needs documents to train on")
        texts = _training_texts(documents, _sources(documents), settings.sample_bytes, seed)
        return train_bpe(texts, settings.vocab_size, settings.special_tokens)
    if isinstance(settings, BpeFiles):
        tokenizer = read_bpe_files(settings.vocab, settings.merges, settings.end_of_document)
        return tokenizer.with_special_tokens(settings.special_tokens)
    if isinstance(settings, ExtendTokenizer):
        tokenizer, name = _extended(settings, documents, seed), "the extended tokenizer"
    else:
        name = settings.path
        tokenizer = _read_hugging_face(settings.path, settings.end_of_document)
    tokenizer = tokenizer.with_special_tokens(settings.special_tokens)
    if settings.begin_of_sequence is not None:
        tokenizer = with_begin_of_sequence(tokenizer, settings.begin_of_sequence)
    if settings.vocab_size not in (None, tokenizer.vocab_size):
        raise UserError(
            f"tokenizer.vocab_size declares {settings.vocab_size:,} tokens, but {name} "
            f"has {tokenizer.vocab_size:,}",
            do=f"set tokenizer.vocab_size to {tokenizer.vocab_size}, or remove it",
        )
    return tokenizer


def write_tokenizer(
    settings: TokenizerSettings,
    documents: Path,
    seed: int,
    output: Path,
    overwrite: bool,
    command: str,
) -> TextTokenizer:
    """Make the tokenizer that ``settings`` ask for, and write it into the folder ``output``.

    Raises UserError where ``output`` exists already unless ``overwrite``, and as
    ``tokenizer_from_settings``.
    """
    made_from_documents = settings.type in ("train_bpe", "extend")
    parent = open_artifact(documents, "documents") if made_from_documents else None
    wanted = Wanted(
        "tokenizer",
        digest_of(settings.model_dump_json(), str(seed)),
        parents={} if parent is None else {"documents": parent.manifest.digest},
    )
    require_writable(output, wanted.kind, overwrite)
    with new_folder(output, overwrite) as target:
        tokenizer = tokenizer_from_settings(settings, documents, seed)
        tokenizer.save(target)
        finish_artifact(
            target, wanted, command=command, counts={"vocab_size": tokenizer.vocab_size}
        )
    return tokenizer


def base_of(settings: ExtendTokenizer) -> TextTokenizer:
    """Return the tokenizer that ``settings`` extend. Raises UserError if it does not exist."""
    return _read_hugging_face(settings.base, settings.end_of_document, "tokenizer.base")


def _extended(settings: ExtendTokenizer, documents: Path | None, seed: int) -> TextTokenizer:
    if documents is None:
        raise UserError("a tokenizer of type extend needs documents to learn from")
    names = _sources(documents)
    chosen = target_sources(settings.with_, names)
    texts = _training_texts(documents, list(chosen), settings.with_.sample_bytes, seed)
    old = probe_texts(documents, [name for name in names if name not in chosen])
    return extend_tokenizer(
        base_of(settings), settings.with_, texts, old, probe_texts(documents, chosen)
    )


def _sources(documents: Path) -> list[str]:
    from feldspar.corpus import store

    return store.sources(documents)


def _read_hugging_face(
    reference: str, end_of_document: str | None, key: str = "tokenizer.path"
) -> TextTokenizer:
    path = Path(reference).expanduser()
    if path.is_file():
        return TextTokenizer.from_file(
            path, end_of_document or Declaration.read(path.parent).end_of_document
        )
    if path.is_dir():
        return TextTokenizer.load(path, end_of_document)
    return TextTokenizer.load(_cached_folder(reference, key), end_of_document)


def _cached_folder(name: str, key: str) -> Path:
    """Return the folder of a name in the local Hugging Face cache, without using the network."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    do = f"give a folder with {TOKENIZER_FILE}"
    try:
        found = huggingface_hub.try_to_load_from_cache(name, TOKENIZER_FILE)
        huggingface_hub.try_to_load_from_cache(name, "tokenizer_config.json")
        do += f", or download it once: hf download {name} {TOKENIZER_FILE} tokenizer_config.json"
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise UserError(
            f"{key}: {name!r} is neither a folder nor a file, and not in the Hugging Face cache",
            do=do,
        )
    return Path(found).parent


def _training_texts(
    documents: Path, names: list[str], sample_bytes: int | None, seed: int
) -> Iterator[str]:
    """Yield all training texts, or a sample over all sources by the hash of the document's
    place."""
    from feldspar.corpus import store

    chosen = None if sample_bytes is None else _sample(documents, names, sample_bytes, seed)
    with progress("training the tokenizer") as advance:
        for name in names:
            for ordinal, document in enumerate(store.documents(documents, TRAINING_SPLIT, name)):
                if chosen is None or chosen[name][ordinal]:
                    yield document.text
                    advance(1)


def _sample(documents: Path, names: list[str], budget: int, seed: int) -> dict[str, np.ndarray]:
    """Return the sampled documents of each source; what a small source does not use, others get."""
    from feldspar.corpus import store

    sizes = {
        name: np.array(
            [len(d.text.encode()) for d in store.documents(documents, TRAINING_SPLIT, name)],
            dtype=np.int64,
        )
        for name in names
    }
    drawn = {}
    smallest_first = sorted(names, key=lambda name: int(sizes[name].sum()))
    for position, name in enumerate(smallest_first):
        share = budget // (len(names) - position)
        key = stream_seed(seed, "tokenizer.sample", name)
        order = np.argsort(hash_integers(np.arange(len(sizes[name])), key), kind="stable")
        # The document that crosses the limit is still taken, so a sample is never empty.
        before = np.cumsum(sizes[name][order]) - sizes[name][order]
        keep = np.zeros(len(order), dtype=bool)
        keep[order[before < share]] = True
        drawn[name] = keep
        budget = max(0, budget - int(sizes[name][keep].sum()))
    return drawn
