"""Run the tasks of lm-eval (EleutherAI's evaluation harness) on our decoder.

Texts are divided into tokens and windows as in lm-eval's own ``hf`` model, so a run and its
exported folder have the same figures. There is no separator before a context, and rolling
log-likelihoods use windows that do not overlap.
"""

import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from feldspar.core.bundled_items import BUNDLED_FOLDER
from feldspar.core.errors import UserError, missing_extra
from feldspar.core.progress import progress
from feldspar.core.streams import stream_seed
from feldspar.evaluate.tasks.continuations import Continuation, score_continuations
from feldspar.evaluate.tasks.generate_until import generate_until
from feldspar.evaluate.tasks.task_results import TaskResult, task_results
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.tokenizer.round_trip import require_given_back

if TYPE_CHECKING:
    from lm_eval.api.model import TemplateLM

DEFAULT_NEW_TOKENS = 256


def run_lm_eval(
    model: TextModel,
    tasks: Sequence[str],
    include_path: Path | None = None,
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    seed: int = 0,
) -> list[TaskResult]:
    """Return the result of each task.

    ``tasks`` are names of bundled tasks (``bundled`` for all of them), of task files in the folder
    ``include_path``, or of lm-eval's own tasks. ``limit`` is a number of items of each task. Raises
    SetupError without lm-eval, and UserError for an unknown task or for data that are not
    available.
    """
    try:
        from lm_eval.evaluator import simple_evaluate
    except ImportError as error:
        raise missing_extra("lm-eval", "eval") from error
    manager = _task_manager(tasks, include_path)
    try:
        with _quiet_harness():
            result = simple_evaluate(
                model=lm_eval_model(model, seed),
                tasks=list(tasks),
                task_manager=manager,
                limit=limit,
                num_fewshot=num_fewshot,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    except OSError as error:  # errors of datasets without network or for missing files
        names = ", ".join(tasks)
        raise UserError(f"the data of a task among {names} are not available: {error}") from error
    assert result is not None, "only other ranks get nothing"
    return task_results(result)


def lm_eval_model(model: TextModel, seed: int = 0) -> "TemplateLM":
    """Return ``model`` as an ``lm_eval.api.model.LM``, for functions of lm-eval.

    Raises SetupError if lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import TemplateLM
        from lm_eval.models.utils import normalize_gen_kwargs
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    except ImportError as error:
        raise missing_extra("lm-eval", "eval") from error

    begin = model.tokenizer.begin_ids

    class FeldsparLM(TemplateLM):
        tokenizer_name = f"feldspar-{model.tokenizer.digest[:12]}"

        @property
        def eot_token_id(self) -> int:
            return model.end_of_document_id

        @property
        def prefix_token_id(self) -> int:
            declared = model.tokenizer.begin_of_sequence_id
            return model.end_of_document_id if declared is None else declared

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
        ) -> list[int]:
            tokens = _encode(model, string)
            return tokens if add_special_tokens is False else [*begin, *tokens]

        def loglikelihood(
            self, requests: list[Any], disable_tqdm: bool = False
        ) -> list[tuple[float, bool]]:
            # score_continuations shows the progress.
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(
            self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: Any
        ) -> list[tuple[float, bool]]:
            wanted = [Continuation(context, tokens) for _, context, tokens in requests]
            scores = score_continuations(model, wanted)
            return [(score.log_likelihood, score.is_greedy) for score in scores]

        def loglikelihood_rolling(
            self, requests: list[Any], disable_tqdm: bool = False
        ) -> list[float]:
            windows, owners = [], []
            texts = [request.args[0] for request in requests]
            encoded = model.tokenizer.encode_documents(texts)
            require_given_back(model.tokenizer, texts, encoded, "the items")
            for number in range(len(texts)):
                # Like lm-eval's own class, this scores the begin-of-sequence token of a text too.
                tokens = [*begin, *encoded[number].tolist()]
                for window in get_rolling_token_windows(
                    tokens, self.prefix_token_id, model.context_length, context_len=1
                ):
                    windows.append(Continuation(*make_disjoint_window(window)))
                    owners.append(number)
            totals = [0.0] * len(requests)
            for owner, score in zip(owners, score_continuations(model, windows), strict=True):
                totals[owner] += score.log_likelihood
            return totals

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            default = min(DEFAULT_NEW_TOKENS, model.context_length // 2)
            texts = []
            with progress("generating", len(requests), "texts") as advance:
                for number, request in enumerate(requests):
                    context, given = request.args
                    options = normalize_gen_kwargs(given, default)
                    texts.append(_generate(model, context, options, stream_seed(seed, number)))
                    advance(1)
            return texts

    return FeldsparLM()


def _encode(model: TextModel, text: str) -> list[int]:
    return model.tokenizer.encode_documents([text])[0].tolist()


def _generate(model: TextModel, context: str, options: Any, seed: int) -> str:
    return generate_until(
        model,
        [*model.tokenizer.begin_ids, *_encode(model, context)],
        options["until"],
        int(options["max_gen_toks"]),
        float(options.get("temperature", 0.0)) if options["do_sample"] else 0.0,
        torch.Generator(model.device).manual_seed(seed),
    )


@contextmanager
def _quiet_harness() -> Generator[None]:
    """Keep lm-eval's notes off standard output, which belongs to the figures, and below errors."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)


def _task_manager(tasks: Sequence[str], include_path: Path | None) -> Any:
    """Return the index of tasks; read lm-eval's thousands of files only if one of their tasks is
    named."""
    from lm_eval.tasks import TaskManager

    folders = [str(BUNDLED_FOLDER)]
    if include_path is not None:
        if not include_path.is_dir():
            raise UserError(f"{include_path} is not a folder of task files")
        folders.append(str(include_path.resolve()))
    manager = TaskManager(include_path=folders, include_defaults=False)
    near = set(manager.all_tasks)
    if set(tasks) <= near:
        return manager
    manager = TaskManager(include_path=folders)
    known = set(manager.all_tasks)
    for task in tasks:
        if task not in known:
            raise UserError(
                f"there is no task {task!r}: none is bundled, none is one of lm-eval's",
                allowed=get_close_matches(task, known, n=5) or sorted(near),
                do="give the folder of your task files (--include-path DIR), or choose one of "
                "these: feldspar evaluate --list-tasks",
            )
    return manager
