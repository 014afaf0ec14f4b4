"""Judge programs by running their tests: pass@k of a set of problems.

pass@k is the probability that at least one of k samples passes the test. From n samples of which c
pass, its unbiased estimate is 1 - C(n - c, k) / C(n, k) (2107.03374, equation 1).
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from statistics import fmean, stdev
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.execution import available_cores
from feldspar.core.progress import progress, say
from feldspar.evaluate.programs.completions import CompletionSettings, completions
from feldspar.evaluate.programs.problems import Problem
from feldspar.evaluate.programs.sandbox import Limits, Outcome, Result, run_program
from feldspar.evaluate.text_model import TextModel


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from ``samples``, of which ``passed`` pass.

    Computed as a product, so that no binomial coefficient overflows. Raises UserError unless
    0 <= passed <= samples and 1 <= k <= samples.
    """
    if not (0 <= passed <= samples and 1 <= k <= samples):
        raise UserError(
            f"pass@{k} cannot be estimated from {samples} samples, of which {passed} pass",
            do="ask for at least k samples",
        )
    if samples - passed < k:
        return 1.0
    return 1.0 - prod(1.0 - k / number for number in range(samples - passed + 1, samples + 1))


@dataclass(frozen=True)
class Judged:
    """The results of one problem's samples."""

    task_id: str
    completions: tuple[str, ...]
    """Empty where the prompt left no room for a completion; then no sample passes."""
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Solved:
    """The results of all problems."""

    judged: tuple[Judged, ...]
    samples: int

    def as_dict(self, ks: Sequence[int]) -> dict[str, Any]:
        """Return the figures for ``--json``: pass@k, outcomes, and each problem.

        The standard error is that of the mean over problems.
        """
        passed = [
            sum(result.outcome is Outcome.PASSED for result in each.results) for each in self.judged
        ]
        figures = {}
        for k in ks:
            values = [pass_at_k(self.samples, count, k) for count in passed]
            figures[str(k)] = {
                "value": fmean(values),
                "standard_error": stdev(values) / len(values) ** 0.5 if len(values) > 1 else None,
            }
        outcomes = Counter(r.outcome.value for each in self.judged for r in each.results)
        return {
            "problems": len(self.judged),
            "samples": self.samples,
            "too_long": sum(not each.results for each in self.judged),
            "pass_at": figures,
            "outcomes": {outcome.value: outcomes[outcome.value] for outcome in Outcome},
            "limited_by_kernel": all(
                r.limited_by_kernel for each in self.judged for r in each.results
            ),
            "results": [
                {
                    "task_id": each.task_id,
                    "passed": count,
                    "samples": [
                        {"completion": text, "outcome": result.outcome, "detail": result.detail}
                        for text, result in zip(each.completions, each.results, strict=True)
                    ],
                }
                for each, count in zip(self.judged, passed, strict=True)
            ],
        }


def solve_problems(
    model: TextModel,
    problems: Sequence[Problem],
    settings: CompletionSettings,
    limits: Limits = Limits(),
) -> Solved:
    """Draw ``settings.samples`` programs for each problem and run their tests.

    Tests run in parallel, while the model writes the next programs. Raises UserError for several
    samples without a temperature, and RunError where programs cannot be run.
    """
    if settings.samples > 1 and settings.sampling.temperature == 0:
        raise UserError(
            f"temperature 0 makes {settings.samples} equal samples",
            do="set a temperature above 0, or one sample",
        )
    running = []
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        progress("programs", len(problems), "problems") as advance,
    ):
        for problem in problems:
            texts = completions(model, problem.beginning, problem.task_id, settings)
            tests = [pool.submit(run_program, problem.program(text), limits) for text in texts]
            running.append((problem.task_id, tuple(texts), tests))
            advance(1)
        judged = [
            Judged(name, texts, tuple(t.result() for t in tests)) for name, texts, tests in running
        ]
    if not all(result.limited_by_kernel for each in judged for result in each.results):
        say("this system lacks limits of the kernel: programs are held back by Python's alone")
    return Solved(tuple(judged), settings.samples)
