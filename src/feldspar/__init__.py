"""From raw text to a released language model at the least compute."""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING

# Import the rooms that share a name with a function first: the function then keeps the name.
import feldspar.adapt
import feldspar.evaluate
import feldspar.plan
import feldspar.release
import feldspar.train  # noqa: F401
from feldspar.api.arguments import load_recipe
from feldspar.api.data import build_corpus, build_shards, deduplicate
from feldspar.api.models import (
    adapt,
    evaluate,
    evaluate_tasks,
    export,
    extend_context,
    import_model,
    open_model,
    release,
    step_order,
    train,
    unpack_release,
    upload_release,
    verify_release,
)
from feldspar.api.recipes import estimate, new_recipe, plan, shipped_recipes, size
from feldspar.api.studies import (
    coordinate_check,
    fit_batch_schedule,
    fit_law,
    reproduce,
    train_family,
    transfer,
    write_report,
)
from feldspar.core.errors import FeldsparError, RunError, SetupError, UserError
from feldspar.huggingface.register import register_with_transformers

if TYPE_CHECKING:
    from feldspar.plan.summary import Plan
    from feldspar.recipe.load import LoadedRecipe, LoadedVisionRecipe
    from feldspar.recipe.root import Recipe
    from feldspar.recipe.vision_root import VisionRecipe
    from feldspar.train.opened_model import Model
else:
    # These files are slow to import, so each is imported when its class is first asked for.
    _CLASSES = {
        "LoadedRecipe": "feldspar.recipe.load",
        "LoadedVisionRecipe": "feldspar.recipe.load",
        "Model": "feldspar.train.opened_model",
        "Plan": "feldspar.plan.summary",
        "Recipe": "feldspar.recipe.root",
        "VisionRecipe": "feldspar.recipe.vision_root",
    }

    def __getattr__(name):
        if name not in _CLASSES:
            raise AttributeError(f"module 'feldspar' has no attribute {name!r}")
        return getattr(import_module(_CLASSES[name]), name)

    def __dir__():
        return [*__all__, "__version__"]


__all__ = [
    "FeldsparError",
    "LoadedRecipe",
    "LoadedVisionRecipe",
    "Model",
    "Plan",
    "Recipe",
    "RunError",
    "SetupError",
    "UserError",
    "VisionRecipe",
    "adapt",
    "build_corpus",
    "build_shards",
    "coordinate_check",
    "deduplicate",
    "estimate",
    "evaluate",
    "evaluate_tasks",
    "export",
    "extend_context",
    "fit_batch_schedule",
    "fit_law",
    "import_model",
    "load_recipe",
    "new_recipe",
    "open_model",
    "plan",
    "register_with_transformers",
    "release",
    "reproduce",
    "shipped_recipes",
    "size",
    "step_order",
    "train",
    "train_family",
    "transfer",
    "unpack_release",
    "upload_release",
    "verify_release",
    "write_report",
]
