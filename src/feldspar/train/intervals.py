"""Tell when something that recurs at a fixed distance along the timeline is due."""

from feldspar.plan.timeline import StepPlan


def is_due(step: StepPlan, every: int) -> bool:
    """Tell whether a multiple of ``every``, counted from the phase's start, lies in the step."""
    start = step.phase.start_position
    before, after = step.position_before - start, step.position_after - start
    return before // every < after // every or after == step.phase.length
