"""Whether something that recurs every so many tokens falls into a step."""

from feldspar.plan.timeline import StepPlan


def is_due(step: StepPlan, every_tokens: int) -> bool:
    """Whether a multiple of ``every_tokens`` (counted from the phase's start) lies in the step."""
    start = step.phase.start_tokens
    before, after = step.tokens_before - start, step.tokens_after - start
    return before // every_tokens < after // every_tokens or after == step.phase.tokens
