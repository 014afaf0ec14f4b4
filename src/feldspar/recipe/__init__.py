"""Recipes: strict YAML sections, amounts with units, schedules, choices, overrides."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Amount": "amounts",
        "Unit": "amounts",
        "CompiledSchedule": "schedules",
        "Schedule": "schedules",
        "compile_schedule": "schedules",
        "Recipe": "root",
        "VisionRecipe": "vision_root",
        "DataRecipe": "data_root",
        "Loaded": "load",
        "LoadedDataRecipe": "load",
        "LoadedRecipe": "load",
        "LoadedVisionRecipe": "load",
        "load_any_recipe": "load",
        "load_data_recipe": "load",
        "load_recipe": "load",
        "load_vision_recipe": "load",
        "find_recipe": "shipped",
        "shipped_names": "shipped",
        "recipe_text": "write",
    },
)
