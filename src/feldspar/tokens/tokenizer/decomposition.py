"""The new tokens of an extended tokenizer in terms of its base's."""

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


def decompositions(base: TextTokenizer, extended: TextTokenizer) -> list[list[int]]:
    """For each new id in order, the ids of ``base`` that its piece was made of before.

    By the base's merges alone: encoding the piece as a text would put a space before it. The
    decompositions of a text's new ids, one after the other, are the text's ids by ``base``. Control
    tokens that were added beside the pieces count as text. Raises UserError when ``extended`` does
    not keep every id of ``base``.
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
