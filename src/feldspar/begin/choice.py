"""Choose shape, vocabulary and tokens by the minutes on this machine and the amount of text."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from feldspar.begin.pile import Pile
from feldspar.begin.shapes import (
    LADDER,
    LARGEST_VOCABULARY,
    SMALL_VOCABULARIES,
    Rung,
    model_sections,
    vocabulary_for,
)
from feldspar.core.errors import UserError
from feldspar.core.progress import progress
from feldspar.model.rows import model_shapes
from feldspar.plan.flops import UTILISATION_CONVENTION, flops_per_token
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.tokens import END_OF_DOCUMENT
from feldspar.runtime.device import choose_device
from feldspar.tokens.tokenizer.bpe import train_bpe
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.step_timing import Pace, measure_pace

MOST_EPOCHS = 4
"""Passes over the text that help nearly as much as new text (Muennighoff et al. 2023, arXiv
2305.16264)."""
TRAINING_SHARE = 0.95
"""Share of the time that training steps get; validation takes at most the rest."""
SEQUENCES, SEQUENCES_ON_GPU = 8, 64
"""Sequences of a step, as in the record; a GPU needs more to be busy."""
RECORD_TOKENS = 5e6
"""Tokens of the record's run. The batch grows with the square root of the tokens beyond them."""
LEAST_STEPS = 200
"""Steps that a run has at least, by smaller batches if the text is little."""
TOKENIZER_SAMPLE_BYTES = 1_000_000
"""Text that shows how many bytes a token has."""
LEAST_SEQUENCES = 16
"""Sequences of new text without which no training makes sense."""
SLOWED = 1.5
"""The machine counts as busy where steps take so many times as long as undisturbed."""


@dataclass(frozen=True)
class Choice:
    """A model and its training, chosen for a pile of text."""

    sections: Mapping[str, Mapping[str, Any]]
    """The sections of the recipe that follow from the model, as plain values."""
    context: int
    """Tokens of a sequence."""
    tokens_per_parameter: float | None
    """Tokens per parameter that the size was chosen by; None for a given model."""
    vocabulary: int
    parameters: int
    text_tokens: int
    """Tokens of the training text, an estimate."""
    tokens: int
    """Tokens that are trained on."""
    sequences: int
    pace: Pace
    seconds: float
    """Predicted seconds of training on this machine, undisturbed."""
    bytes_per_token: float
    bound_by: str
    """``minutes`` or ``text``: the reason for not more tokens."""
    start_from: Path | None = None
    """Folder of the model that training starts from."""

    @property
    def epochs(self) -> float:
        """Return the passes over the training text."""
        return self.tokens / max(self.text_tokens, 1)

    @property
    def seconds_now(self) -> float:
        """Return the predicted seconds beside the programs that run now."""
        return self.seconds * self.pace.undisturbed / self.pace.now

    @property
    def busy(self) -> bool:
        """Tell whether other programs slow this machine down."""
        return self.seconds_now > SLOWED * self.seconds


@dataclass(frozen=True)
class Candidate:
    """A rung with the vocabulary and the parameters that it has for the text."""

    rung: Rung
    vocabulary: int

    @cached_property
    def recipe(self) -> Recipe:
        """Return a recipe of this model without text, to measure its speed."""
        sections = model_sections(self.rung)
        sections["model"]["vocab_size"] = self.vocabulary
        return recipe_without_text(sections, self.rung.context)

    @cached_property
    def parameters(self) -> int:
        """Count the parameters."""
        return model_shapes(self.recipe.model).parameters

    @cached_property
    def flops_per_token(self) -> float:
        """Return the FLOPs of a token by the convention in which speeds are compared."""
        model = self.recipe.model
        counts = flops_per_token(model, model_shapes(model), self.rung.context)
        return counts[UTILISATION_CONVENTION]


@dataclass(frozen=True)
class Fitted:
    """The length of a training, and its batch."""

    tokens: int
    sequences: int
    bound_by: str


def fit(timed: float, most: float, usual_sequences: int, context: int) -> Fitted:
    """Return a length in whole steps: the tokens that there is time for, but at most ``most``."""
    tokens = min(timed, most)
    growth = 2 ** max(0, round(math.log2(math.sqrt(tokens / RECORD_TOKENS))))
    sequences = max(1, min(usual_sequences * growth, int(tokens / LEAST_STEPS / context)))
    step = sequences * context
    tokens = max(1, int(tokens) // step) * step
    return Fitted(tokens, sequences, "minutes" if timed <= most else "text")


class Chooser:
    """Chooses a model for ``pile``, and measures no speed and no tokenizer twice."""

    def __init__(
        self,
        pile: Pile,
        train_share: float,
        pace: Callable[[Candidate, int], Pace] | None = None,
    ) -> None:
        self._pile = pile
        self._train_bytes = pile.new_bytes * train_share
        self._measure = pace or (
            lambda candidate, sequences: measure_pace(candidate.recipe, 0, sequences)
        )
        self._paces: dict[Candidate, Pace] = {}
        self._tokenizers: dict[int, TextTokenizer] = {}
        self._bytes_per_token: dict[int, float] = {}

    def choose(self, minutes: float, parameters: float | None = None) -> Choice:
        """Return the model for ``minutes`` of training, of about ``parameters`` if these are given.

        Raises UserError where there is too little text.
        """
        candidates = [
            Candidate(rung, min(vocabulary_for(self._train_bytes, rung), self._most_merges))
            for rung in LADDER
        ]
        smallest = candidates[0]
        require_text(
            self._pile,
            self._most_tokens(smallest) / MOST_EPOCHS,
            smallest.rung.context,
            self._token_bytes(smallest.vocabulary),
        )
        if parameters is not None:
            candidates = [
                min(candidates, key=lambda each: abs(math.log(each.parameters / parameters)))
            ]
        chosen = candidates[min(1, len(candidates) - 1)]
        with progress("measuring the speed of this machine", None, "models") as advance:
            while chosen not in self._paces:
                self._paces[chosen] = self._measure(chosen, self._usual_sequences(chosen))
                advance(1)
                chosen = self._best(candidates, minutes)
        return self._choice(chosen, minutes)

    def _best(self, candidates: list[Candidate], minutes: float) -> Candidate:
        """Return the largest candidate that gets as many tokens as it needs."""
        best = candidates[0]
        for candidate in candidates:
            needed = candidate.rung.tokens_per_parameter * candidate.parameters
            # In this order: a larger vocabulary takes time to try.
            if self._timed(candidate, minutes) < needed or self._most_tokens(candidate) < needed:
                break
            best = candidate
        return best

    def _choice(self, chosen: Candidate, minutes: float) -> Choice:
        pace, most = self._paces[chosen], self._most_tokens(chosen)
        context = chosen.rung.context
        usual = self._usual_sequences(chosen)
        fitted = fit(self._timed(chosen, minutes), most, usual, context)
        return Choice(
            sections=model_sections(chosen.rung),
            context=context,
            tokens_per_parameter=chosen.rung.tokens_per_parameter,
            vocabulary=chosen.vocabulary,
            parameters=chosen.parameters,
            text_tokens=int(most / MOST_EPOCHS),
            tokens=fitted.tokens,
            sequences=fitted.sequences,
            pace=pace,
            seconds=fitted.tokens / pace.undisturbed / TRAINING_SHARE,
            bytes_per_token=self._token_bytes(chosen.vocabulary),
            bound_by=fitted.bound_by,
        )

    def _timed(self, candidate: Candidate, minutes: float) -> float:
        """Return the tokens for which there is time, by the speed of the nearest model measured."""
        near = min(
            self._paces, key=lambda each: abs(math.log(each.parameters / candidate.parameters))
        )
        speed = self._paces[near].undisturbed * near.flops_per_token / candidate.flops_per_token
        return minutes * 60 * speed * TRAINING_SHARE

    def _most_tokens(self, candidate: Candidate) -> float:
        return MOST_EPOCHS * self._train_bytes / self._token_bytes(candidate.vocabulary)

    @cached_property
    def _texts(self) -> list[str]:
        return sample_texts(self._pile, TOKENIZER_SAMPLE_BYTES)

    @cached_property
    def _most_merges(self) -> int:
        """Return the largest vocabulary that the sample is enough for, where it is all text."""
        if self._pile.text_bytes <= TOKENIZER_SAMPLE_BYTES:
            largest = vocabulary_for(self._train_bytes, LADDER[-1])
            for vocabulary in (largest, *SMALL_VOCABULARIES):
                with suppress(UserError):
                    self._tokenizer(vocabulary)
                    return vocabulary
        return LARGEST_VOCABULARY

    def _tokenizer(self, vocabulary: int) -> TextTokenizer:
        """Train a tokenizer of the sample, once. Raises UserError where that has too few words."""
        if vocabulary not in self._tokenizers:
            self._tokenizers[vocabulary] = train_bpe(self._texts, vocabulary, (END_OF_DOCUMENT,))
        return self._tokenizers[vocabulary]

    def _token_bytes(self, vocabulary: int) -> float:
        """Return the bytes of a token of such a vocabulary, by a tokenizer of a sample."""
        if vocabulary not in self._bytes_per_token:
            found = bytes_per_token(self._tokenizer(vocabulary), self._texts)
            self._bytes_per_token[vocabulary] = found
        return self._bytes_per_token[vocabulary]

    def _usual_sequences(self, candidate: Candidate) -> int:
        return usual_sequences(candidate.recipe)


def recipe_without_text(sections: Mapping[str, Mapping[str, Any]], context: int) -> Recipe:
    """Return a recipe of a model, of which only the speed is measured."""
    phase = {
        "name": "all",
        "length": "100 steps",
        "batch": {"sequences": SEQUENCES},
        "context_length": context,
    }
    values = {"schema_version": 1, "name": "speed", "phases": [phase], **sections}
    return Recipe.model_validate_json(json.dumps(values))


def bytes_per_token(tokenizer: TextTokenizer, texts: Sequence[str]) -> float:
    """Return the bytes of a token of ``texts``, each with a token at its end."""
    tokens = sum(len(tokenizer.encode(text)) + 1 for text in texts)
    return sum(len(text.encode()) for text in texts) / tokens


def usual_sequences(recipe: Recipe) -> int:
    """Return the sequences of a step on this machine."""
    on_gpu = choose_device(recipe.runtime).type == "cuda"
    return SEQUENCES_ON_GPU if on_gpu else SEQUENCES


def require_text(pile: Pile, tokens: float, context: int, bytes_per_token: float) -> None:
    """Raise UserError where so many ``tokens`` of text are too few for any training."""
    needed = LEAST_SEQUENCES * context
    if tokens < needed:
        raise UserError(
            f"the text is too little to train on: {pile.new_bytes / 1000:,.1f} kB",
            allowed=f"at least {needed * bytes_per_token / 1000:,.0f} kB for training, beside the "
            "held-out documents",
            do="point to more files",
        )


def sample_texts(pile: Pile, limit: int) -> list[str]:
    """Return texts of about ``limit`` bytes, of all sources by their share, evenly over each."""
    share = min(1.0, limit / max(pile.text_bytes, 1))
    chosen: list[str] = []
    for source in pile.sources:
        wanted, held = share * source.text_bytes, sum(len(text) for text in source.texts)
        step = max(1, round(held / max(wanted, 1)))
        for text in source.texts[::step]:
            chosen.append(text[: int(max(wanted, 1))])
    return chosen
