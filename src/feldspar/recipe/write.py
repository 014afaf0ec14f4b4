"""A resolved recipe as YAML, each value with its origin; itself a valid recipe."""

import io
import json
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from feldspar.recipe.load import LoadedRecipe
from feldspar.recipe.tree import Origins, origin_of
from feldspar.recipe.yaml import KeyPath

COMMENT_COLUMN = 60


def recipe_text(loaded: LoadedRecipe) -> str:
    """YAML of the recipe with choices applied, paths absolute and defaults written out."""
    excluded = {"choices", "choose"}
    dumped = loaded.recipe.model_dump_json(by_alias=True, exclude=excluded, exclude_none=True)
    document = _commented(json.loads(dumped), (), loaded.origins)
    writer = YAML(typ="rt", pure=True)
    writer.width = 4096
    writer.default_flow_style = False
    buffer = io.StringIO()
    writer.dump(document, buffer)
    return buffer.getvalue()


def _commented(value: Any, path: KeyPath, origins: Origins) -> Any:
    if isinstance(value, dict):
        mapping = CommentedMap()
        for key, item in value.items():
            inner = (*path, key)
            mapping[key] = _commented(item, inner, origins)
            if not isinstance(item, dict | list):
                origin = origin_of(origins, inner)
                if origin != "default":
                    mapping.yaml_add_eol_comment(origin, key, column=COMMENT_COLUMN)
        return mapping
    if isinstance(value, list):
        return CommentedSeq(
            [_commented(item, (*path, index), origins) for index, item in enumerate(value)]
        )
    return value
