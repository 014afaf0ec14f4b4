"""Score a model's answers to retrieval questions: by greedy text, and by likelihood."""

import re
from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch

from feldspar.core.progress import progress
from feldspar.evaluate.tasks.continuations import Continuation, score_continuations
from feldspar.evaluate.tasks.retrieval import Question, tokenize
from feldspar.evaluate.text_model import TextModel
from feldspar.model.generation import generate

NEW_TOKENS = 8
"""Number of greedy tokens in which the answer must appear."""
NORMAL_QUANTILE = 1.959964
DECIMAL = "[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+"
"""A whole number, with or without commas between its thousands."""


def answer_questions(model: TextModel, asked: Sequence[Question]) -> dict[str, Any]:
    """Return the shares of right answers with 95 % Wilson intervals, overall and by depth.

    ``exact``: the first number (or hexadecimal word) in at most eight greedy tokens is the answer.
    ``ranked``: the answer is more likely than each wrong one; ``ranked_chance`` is the share by
    chance.
    """
    exact, ranked = [], []
    with progress("retrieval", len(asked), "questions") as advance:
        for question in asked:
            exact.append(is_exact(_greedy_text(model, question), question.answer))
            ranked.append(_is_likeliest(model, question))
            advance(1)
    by_depth: dict[str, dict[str, float]] = {}
    for depth in sorted({question.depth for question in asked}):
        of_depth = [n for n, question in enumerate(asked) if question.depth == depth]
        by_depth[f"{depth:.1f}"] = {
            "exact": sum(exact[n] for n in of_depth) / len(of_depth),
            "ranked": sum(ranked[n] for n in of_depth) / len(of_depth),
        }
    return {
        "questions": len(asked),
        "exact": sum(exact) / len(asked),
        "exact_interval": wilson_interval(sum(exact), len(asked)),
        "ranked": sum(ranked) / len(asked),
        "ranked_interval": wilson_interval(sum(ranked), len(asked)),
        "ranked_chance": 1 / (1 + len(asked[0].wrong)),
        "by_depth": by_depth,
    }


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); it stays within 0 to 1."""
    z2, share = NORMAL_QUANTILE**2, right / total
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = NORMAL_QUANTILE * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    half /= 1 + z2 / total
    return max(0.0, middle - half), min(1.0, middle + half)


def is_exact(text: str, answer: str) -> bool:
    """Tell whether the first number of ``text`` is ``answer``; hexadecimal if the answer is.

    A decimal number may have commas between thousands, as in 12,345.
    """
    digits = DECIMAL if answer.strip().isdecimal() else "[0-9a-f]+"
    found = re.search(digits, text)
    return found is not None and found.group().replace(",", "") == answer.strip()


def _greedy_text(model: TextModel, question: Question) -> str:
    prompt = torch.tensor([question.tokens], device=model.device)
    end = model.end_of_document_id
    new = generate(
        model.decoder, prompt, NEW_TOKENS, stop_ids=[end], n_real_vocab=model.n_real_vocab
    )[0, prompt.shape[1] :].tolist()
    return model.tokenizer.decode([token for token in new if token != end])


def _is_likeliest(model: TextModel, question: Question) -> bool:
    options = [question.answer, *question.wrong]
    requests = [
        Continuation(question.tokens, tokenize(model.tokenizer, option)) for option in options
    ]
    scores = [score.log_likelihood for score in score_continuations(model, requests)]
    return scores[0] > max(scores[1:])
