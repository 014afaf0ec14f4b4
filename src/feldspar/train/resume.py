"""Changes of a recipe that a resumed run may have, and changes that are refused."""

from typing import Any

from feldspar.core.differences import differences
from feldspar.core.errors import UserError
from feldspar.recipe.recorded import recorded_values

FIXED_SECTIONS = (
    *("seed", "start_from", "adapt", "model", "parametrization", "optimizer"),
    *("images", "task", "augmentation", "average_weights"),
)
"""Sections that shaped finished steps."""

RULES_OF_BATCH = ("gain", "maximum", "max_factor", "monotone", "objective", "learning_rate_power")
"""Keys of a batch that follows the noise scale. Only future decisions depend on them."""


def check_same_past(
    before: dict[str, Any], now: dict[str, Any], phase_index: int, where: str
) -> list[str]:
    """Return changes that affect only the future, as lines ``key: old -> new``.

    ``phase_index`` is the phase in which the run stopped. Raises UserError, with a line for each
    change, when a setting differs that shaped finished steps.
    """
    past: list[str] = []
    future: list[str] = []
    for key, old, new in differences(recorded_values(before), recorded_values(now)):
        line = f"{key}: {old} -> {new}"
        (past if _alters_past(key, phase_index) else future).append(line)
    if past:
        raise UserError(
            f"the recipe changed under the run: {past[0]}",
            where=where,
            found="; ".join(past),
            do="give the recipe that the run was started with, or choose another folder with --out",
        )
    return future


def _alters_past(key: str, phase_index: int) -> bool:
    parts = key.split(".")
    if parts[0] == "images" and parts[-1] in ("train", "validation", "train_images"):
        return False  # the data are compared by content
    if parts == ["start_from", "recipe"]:
        return False  # it names the recipe that trains the parent run, and changes nothing here
    if parts[0] in FIXED_SECTIONS:
        return True
    if parts[0] == "phases" and len(parts) > 2:
        index = int(parts[1])
        tail = parts[2] in ("length", "learning_rate", "weight_decay") or parts[2].endswith("every")
        if parts[2] == "data" and parts[3:] in (["path"], ["tokens"]):
            return False  # the pairs themselves are compared, wherever they lie
        tail |= parts[2] == "batch" and parts[-1] in RULES_OF_BATCH
        return index < phase_index or (index == phase_index and not tail)
    return False
