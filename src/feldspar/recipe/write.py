"""Write a resolved recipe as YAML with the origin of each value; the result is a valid recipe."""

import io
import json
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from feldspar.recipe.load import Loaded
from feldspar.recipe.tree import Origins, origin_of
from feldspar.recipe.yaml import KeyPath

COMMENT_COLUMN = 60


def recipe_text(loaded: Loaded) -> str:
    """Return the recipe as YAML with choices applied, absolute paths, and all defaults."""
    excluded = {"choices", "choose"}
    values = json.loads(loaded.recipe.model_dump_json(by_alias=True, exclude=excluded))
    return dumped(_commented(_without_default_nulls(loaded.recipe, values), (), loaded.origins))


def dumped(document: CommentedMap) -> str:
    """Return a document as YAML text, with its comments and one key on each line."""
    writer = YAML(typ="rt", pure=True)
    writer.width = 4096
    writer.default_flow_style = False
    buffer = io.StringIO()
    writer.dump(document, buffer)
    return buffer.getvalue()


def _without_default_nulls(section: Any, values: Any) -> Any:
    """Return ``values`` (dumped from ``section``) without nulls that are the key's default."""
    if isinstance(section, BaseModel):
        kept = {}
        for name, field in type(section).model_fields.items():
            key, item = field.alias or name, getattr(section, name)
            if key in values and not (item is None and field.default is None):
                kept[key] = _without_default_nulls(item, values[key])
        return kept
    if isinstance(section, dict):
        return {key: _without_default_nulls(section[key], item) for key, item in values.items()}
    if isinstance(section, tuple):
        return [_without_default_nulls(*pair) for pair in zip(section, values, strict=True)]
    return values


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
