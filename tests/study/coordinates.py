"""Candidates and runs that the tests of the coordinate check begin from."""

from feldspar.core.rows import Role
from feldspar.model.rows import model_shapes
from feldspar.parametrization.coordinates import Axis
from feldspar.parametrization.tables import table
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.study.coordinate_points import Candidate, candidates_of, model_at, point_on
from feldspar.study.coordinate_runs import UNDISTURBED, CoordinateRun


def recipe(*overrides: str) -> Recipe:
    return load_recipe("cerebras-gpt/small", list(overrides)).recipe


PLAIN = recipe()


def candidate(name: str, kind: Recipe = PLAIN) -> Candidate:
    return next(one for one in candidates_of(kind) if one.name == name)


def a_run(name: str, axis: Axis, value: float, learning_rate: float = 1e-2) -> CoordinateRun:
    point = point_on(axis, value)
    model = model_at(PLAIN.model, point)
    settings = candidate(name).settings.model_copy(update={"learning_rate": learning_rate})
    shapes = model_shapes(model)
    kept = {row.name: point.density for row in shapes.rows if row.role is Role.HIDDEN and value < 1}
    optimizer = PLAIN.optimizer.model_copy(update=UNDISTURBED)
    made = table(settings, shapes, kept, optimizer)
    return CoordinateRun(made, model, point.density, seed=5, optimizer=optimizer)
