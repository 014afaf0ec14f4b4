"""The power of a design, and the trunks from which runs start."""

import pytest

from feldspar.core.student_t import half_width
from feldspar.papers.kit.gain import Gain, power
from feldspar.papers.kit.paper import Scale
from feldspar.papers.kit.trunk import TRUNK_RECIPE, TRUNKS, start_from_trunk, trunk_stage
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.start_from import StartFromRun


def test_the_power_is_that_of_students_t() -> None:
    """t(0.975) = 2.7764 and t(0.8) = 0.9410 with 4 degrees of freedom."""
    values = (0.01, 0.02, 0.03, 0.04, 0.05)
    error = (0.00025 / 5) ** 0.5
    assert half_width(values) == pytest.approx(2.7764 * error, rel=1e-4)
    assert Gain(values).detectable == pytest.approx((2.7764 + 0.9410) * error, rel=1e-4)
    assert f" (a true difference of {(2.7764 + 0.9410) * error:.2%} " in power(Gain(values))
    assert power(Gain((0.01,))) == ""


@pytest.mark.parametrize(("scale", "count"), [(Scale.SMALL, TRUNKS), (Scale.QUICK, 1)])
def test_a_branch_starts_from_a_trunk_that_its_stage_trains(scale: Scale, count: int) -> None:
    stage = trunk_stage(scale)
    trials = stage.trials({})
    assert stage.folder is not None and len(trials) == count
    folders = [(stage.folder / trial.name).as_posix() for trial in trials]
    for seed in range(5):
        start = load_recipe(TRUNK_RECIPE, [start_from_trunk(scale, seed)]).recipe.start_from
        assert isinstance(start, StartFromRun)
        assert start.path == folders[seed % count]
    for seed, trial in enumerate(trials):
        assert load_recipe(TRUNK_RECIPE, list(trial.overrides)).recipe.seed == seed
