"""Continue text until one of several strings appears, as lm-eval's generation tasks require."""

from collections.abc import Sequence

import torch

from feldspar.core.errors import UserError
from feldspar.evaluate.text_model import TextModel
from feldspar.model.generation import Sampling, stream_tokens


def generate_until(
    model: TextModel,
    prompt: Sequence[int],
    stop_strings: Sequence[str],
    max_new_tokens: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> str:
    """Return the continuation of ``prompt`` up to the first stop string, which is removed.

    Generation also ends at an end-of-document token. A prompt that is too long loses its beginning.
    Raises UserError if the context has no room for a prompt.
    """
    room = model.context_length - max_new_tokens
    if room < 1:
        raise UserError(
            f"{max_new_tokens} new tokens leave no room for a prompt in a context of "
            f"{model.context_length}",
            do="set max_gen_toks in the task to less",
        )
    fed = list(prompt)[-room:] or [model.before_id]
    new: list[int] = []
    text = ""
    for chosen in stream_tokens(
        model.decoder,
        torch.tensor([fed], device=model.device),
        max_new_tokens,
        sampling=Sampling(temperature),
        generator=generator,
        n_real_vocab=model.n_real_vocab,
    ):
        if int(chosen) == model.end_of_document_id:
            break
        new.append(int(chosen))
        # Decode all tokens each time, because the bytes of a character may be in several tokens.
        text = model.tokenizer.decode(new)
        if any(stop in text for stop in stop_strings if stop):
            break
    return cut_at_first(text, stop_strings)


def cut_at_first(text: str, stop_strings: Sequence[str]) -> str:
    """Return ``text`` up to the first of the stop strings in it."""
    places = [text.find(stop) for stop in stop_strings if stop and stop in text]
    return text[: min(places)] if places else text
