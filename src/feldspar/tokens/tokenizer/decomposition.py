"""Split the new tokens of an extended tokenizer into tokens of its base."""

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


def decompositions(base: TextTokenizer, extended: TextTokenizer) -> list[list[int]]:
    """Return for each new id, in order, the ids of ``base`` that spell it.

    They come from the base's merges alone, because encoding the token as text would put a space
    before it. The base's ids of a text are the decompositions of its new ids in a row; control
    tokens that were added beside the vocabulary count as text. Raises UserError if ``extended``
    does not keep all ids of ``base``.
    """
    for identifier in range(base.vocab_size):
        old, new = base.piece(identifier), extended.piece(identifier)
        if old != new:
            raise UserError(
                f"the tokenizer does not extend the base: id {identifier} was {old!a} and is "
                f"{new!a}",
                do="give the tokenizer that was extended as base",
            )
    found = []
    for identifier in range(base.vocab_size, extended.vocab_size):
        piece = extended.piece(identifier) or ""
        added = extended.is_added(identifier)
        found.append(base.encode_documents([piece])[0].tolist() if added else base.merged(piece))
    return found
