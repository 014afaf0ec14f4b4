"""Continue the prompts of problems, several samples of each side by side."""

from dataclasses import dataclass

import torch

from feldspar.core.streams import stream_seed
from feldspar.evaluate.tasks.generate_until import cut_at_first
from feldspar.evaluate.text_model import TextModel
from feldspar.model.generation import Sampling, stream_tokens
from feldspar.tokens.tokenizer.text_stream import TextStream

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Strings that end a function body (2107.03374, section 3.2)."""
SIDE_BY_SIDE = 16
"""Samples that are drawn together. The drawn tokens depend on this number."""


@dataclass(frozen=True)
class CompletionSettings:
    """Settings by which completions are drawn."""

    samples: int
    """Samples of each problem."""
    max_new_tokens: int
    sampling: Sampling
    seed: int


def completions(
    model: TextModel, prompt: str, task_id: str, settings: CompletionSettings
) -> list[str]:
    """Return the samples of one problem; an empty list where the context has no room for any.

    A completion ends before the first of ``STOPS``. It depends only on the model, the prompt, the
    task and the settings.
    """
    ids = model.begun(model.tokenizer.encode(prompt))
    room = min(settings.max_new_tokens, model.context_length - len(ids))
    found: list[str] = []
    while room > 0 and len(found) < settings.samples:
        key = stream_seed(settings.seed, "evaluate.programs", task_id, len(found))
        generator = torch.Generator(model.device).manual_seed(key)
        count = min(SIDE_BY_SIDE, settings.samples - len(found))
        found += _drawn(model, ids, count, room, settings.sampling, generator)
    return found


def _drawn(
    model: TextModel,
    ids: list[int],
    count: int,
    room: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[str]:
    rows = [Row(TextStream(model.tokenizer, ids), model.stop_ids) for _ in range(count)]
    for chosen in stream_tokens(
        model.decoder,
        torch.tensor([ids] * count, device=model.device),
        room,
        sampling=sampling,
        generator=generator,
        stop_ids=model.stop_ids,
        n_real_vocab=model.n_real_vocab,
    ):
        for row, token in zip(rows, chosen.tolist(), strict=True):
            row.add(token)
        if all(row.ended for row in rows):
            break
    return [row.text() for row in rows]


class Row:
    """The text of one sample."""

    def __init__(self, stream: TextStream, stop_ids: tuple[int, ...]) -> None:
        self._stream, self._stop_ids = stream, stop_ids
        self._text = ""
        self.ended = False
        """True after a stop string or a token that ends a text."""

    def add(self, token: int) -> None:
        """Add the next token; after the end nothing is added."""
        if self.ended:
            return
        if token in self._stop_ids:
            self.ended = True
            return
        self._text += self._stream.add(token)
        self.ended = any(stop in self._text for stop in STOPS)

    def text(self) -> str:
        """Return the text up to the first stop string."""
        return cut_at_first(self._text + self._stream.end(), STOPS)
