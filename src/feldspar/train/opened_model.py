"""Open a run, a release or a Hugging Face folder as a language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.evaluate.continued_text import ContinuedText
from feldspar.evaluate.conversation import Conversation
from feldspar.evaluate.exported import read_text_model, unfinished_run
from feldspar.evaluate.loss.documents import text_losses
from feldspar.evaluate.loss.text_loss import total_loss
from feldspar.evaluate.text_model import TextModel
from feldspar.huggingface.import_folder import import_model
from feldspar.model.decoder import Decoder
from feldspar.model.generation import Sampling
from feldspar.recipe.recorded import is_run
from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.runtime.device import choose_device
from feldspar.runtime.threads import set_threads
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.load import LoadedRun, load_run, text_model_of

TokenIds = Sequence[Sequence[int]] | np.ndarray | Tensor
"""Token ids of sequences of equal length, batch x length."""


@dataclass(frozen=True, repr=False)
class Model:
    """A language model, to score text and to continue it; without a tokenizer, logits only."""

    path: Path
    decoder: Decoder
    text: TextModel | None
    """The decoder with its tokenizer. None for a folder without one."""
    run: LoadedRun | None = None
    """The run and its checkpoint. None for an exported model."""

    def __repr__(self) -> str:
        """Return the folder and the size."""
        parameters = sum(tensor.numel() for tensor in self.decoder.parameters())
        return f"Model({str(self.path)!r}: {parameters:,} parameters)"

    @property
    def text_model(self) -> TextModel:
        """The decoder with its tokenizer. Raises UserError where the folder holds no tokenizer."""
        if self.text is None:
            raise UserError(
                f"{self.path} holds no tokenizer.json: only logits of token ids can be computed",
                do="put the tokenizer that the model was trained with into the folder",
            )
        return self.text

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer that the model was trained with."""
        return self.text_model.tokenizer

    @torch.no_grad()
    def logits(self, token_ids: TokenIds) -> Tensor:
        """Return the logits of the next token after each token, batch x length x vocabulary.

        ``token_ids`` is batch x length of integers. The result is float32 and lies on the device of
        ``token_ids``; for lists and arrays that is the processor. Raises UserError for anything
        else than integers of the vocabulary, and for more positions than the model has.
        """
        real = None if self.text is None else self.text.n_real_vocab
        table = self.decoder.token_embedding
        rows = real or table.num_embeddings
        ids = _checked_ids(token_ids, rows)
        logits = self.decoder.logits(self.decoder(ids.to(table.weight.device)))
        return logits[..., :rows].float().to(ids.device)

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 100,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> str:
        """Return ``prompt`` continued by at most ``max_new_tokens`` tokens.

        An empty prompt begins a new document. The text ends where the model ends it; special tokens
        have no text. Temperature 0 takes the likeliest token each time; otherwise tokens are drawn
        with ``seed``, from the ``top_k`` likeliest, and of these from the fewest likeliest whose
        probabilities sum to ``top_p`` or more. Raises UserError for settings outside their range,
        and for more tokens than a learned position table holds.
        """
        pieces = self.stream(
            prompt,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        return prompt + "".join(pieces)

    def stream(
        self,
        prompt: str,
        max_new_tokens: int = 100,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> ContinuedText:
        """Return an iterator over the pieces of the continuation, as the model makes them.

        The pieces do not hold ``prompt``; a character is never divided. Arguments and errors are
        those of ``generate``.
        """
        model = self.text_model
        if not isinstance(prompt, str):
            raise UserError("prompt: a text is needed", found=type(prompt).__name__)
        _require_whole(max_new_tokens=max_new_tokens, seed=seed)
        return ContinuedText(
            model,
            model.begun(self._encoded(prompt).tolist()),
            max_new_tokens,
            sampling=Sampling(temperature, top_k, top_p),
            generator=torch.Generator(model.device).manual_seed(seed),
        )

    def converse(
        self,
        system: str | None = None,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Conversation:
        """Return a conversation by the model's chat template; its ``ask`` yields an answer.

        ``system`` is the message that stands before the first question, ``max_new_tokens`` the most
        tokens of an answer. Raises UserError for a model without a chat template, and for settings
        outside their range.
        """
        _require_whole(max_new_tokens=max_new_tokens, seed=seed)
        return Conversation(
            self.text_model,
            system=system,
            max_new_tokens=max_new_tokens,
            sampling=Sampling(temperature, top_k, top_p),
            seed=seed,
        )

    def bits_per_byte(self, text: str | Sequence[str]) -> float:
        """Return the loss on ``text`` in bits for each byte of its UTF-8 form.

        A sequence of texts is a sequence of documents: the result is all their bits over all their
        bytes. Raises UserError for text without a byte, and for text that the tokenizer does not
        give back.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if not all(isinstance(each, str) for each in texts):
            raise UserError("text: a text, or a sequence of texts, is needed")
        for each in texts:
            self._encoded(each)
        return total_loss(text_losses(self.text_model, texts)).bits_per_byte

    def _encoded(self, text: str) -> np.ndarray:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text cannot be written in UTF-8: character {error.start} is half of a "
                "surrogate pair",
                found=ascii(text[error.start]),
            ) from None
        return self.tokenizer.encode_documents([text])[0]


def open_model(path: Path, checkpoint: str = "last", device: str | None = None) -> Model:
    """Open a run folder, a release, an imported folder, or a Hugging Face folder.

    ``checkpoint`` of a run is ``last`` or a number of tokens. The model lies on ``device``; by
    default that is the one of the run's recipe, or a GPU where there is one. The front door
    (``feldspar.open_model``) has checked that the folder is there. Raises UserError for a folder of
    another kind, RunError for a damaged one.
    """
    if not is_run(path):
        if unfinished := unfinished_run(path):
            say(f"warning: the run that this was released from is unfinished: {unfinished}")
        imported = import_model(path)
        decoder = imported.decoder().to(_device(device, RuntimeSettings())).eval()
        return Model(path, decoder, read_text_model(decoder, imported.tokenizer_folder))
    run = load_run(path, checkpoint)
    if run.unfinished:
        say(f"warning: the run is unfinished: {run.unfinished}")
    set_threads(run.recipe.runtime)
    run.decoder.to(_device(device, run.recipe.runtime))
    return Model(path, run.decoder, text_model_of(run), run)


def _require_whole(**values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(f"{name}: a whole number is needed", found=value)


def _device(name: str | None, settings: RuntimeSettings) -> torch.device:
    if name is None:
        return choose_device(settings)
    try:
        return torch.device(name)
    except RuntimeError:
        raise UserError(
            "device: no such device", found=name, allowed=("cpu", "cuda", "cuda:0")
        ) from None


def _checked_ids(given: Any, rows: int) -> Tensor:
    """Return the ids as i64. Raises UserError unless they are a batch of tokens of ``rows``."""
    what = "token_ids: integers are needed, batch x length"
    if isinstance(given, Tensor):
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            raise UserError(what, found=given.dtype)
        ids = given.detach().to(torch.int64)
    else:
        try:
            array = np.asarray(given)
        except ValueError:
            raise UserError(what, found="sequences of different lengths") from None
        if array.dtype.kind not in "iu":
            raise UserError(what, found=f"an array of {array.dtype}")
        ids = torch.from_numpy(array.astype(np.int64))
    if ids.dim() != 2 or ids.numel() == 0:
        raise UserError(what, found=f"shape {tuple(ids.shape)}")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= rows:
        raise UserError(
            "token_ids: a token lies outside the vocabulary",
            found=low if low < 0 else high,
            allowed=f"0 to {rows - 1}",
        )
    return ids
