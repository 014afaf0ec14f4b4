"""A trained run in the form that evaluation uses."""

from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.load import LoadedRun


def text_model_of(run: LoadedRun) -> TextModel:
    """Return the run's decoder, on its device, with the run's own tokenizer."""
    tokenizer = TextTokenizer.load(run.tokenizer_folder)
    # Rows beyond the tokenizer's vocabulary took no part in training.
    return TextModel(run.decoder, tokenizer, tokenizer.vocab_size)
