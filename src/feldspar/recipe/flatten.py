"""Write a recipe and its parents as one file that works alone.

Choices and comments are kept, and paths are changed to fit the new place. A comment stays above its
key or behind it. Comments at the top of the files come first: the recipe's own, then its parents'.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.tokens import CommentToken

from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.recipe.load import load_any_recipe, read_tree
from feldspar.recipe.tree import Origins, get_value, origin_of, set_value, split_key
from feldspar.recipe.write import dumped
from feldspar.recipe.yaml import KeyPath

_OfKey = tuple[list[str], str | None]
"""Comment lines above a key, and the comment behind it."""
FLOW_WIDTH = 100
"""Sections longer than this are written with one key on each line."""
INDENT = 2


def flat_recipe(reference: str, folder: Path) -> str:
    """Write a recipe as YAML for a file in ``folder``.

    Raises UserError for a recipe that does not load.
    """
    tree, origins, folders = read_tree(reference)
    for path in _path_keys(reference, tree):
        base = folders[origin_of(origins, path).rpartition(":")[0]]
        tree = set_value(tree, path, _seen_from(folder, base, str(get_value(tree, path))))
    remarks = {file: _remarks(Path(file)) for file in folders}
    heads = [line for of in reversed(remarks.values()) for line in of.head]
    document = _commented(tree, (), _by_key(origins, remarks))
    return "".join(f"{line}\n" for line in heads) + dumped(document)


def copy_recipe(reference: str, file: Path | None, overwrite: bool = False) -> Path:
    """Write a recipe to ``file`` (default: its name in the working folder) and return the file.

    Raises UserError for a recipe that does not load, and for a file that is there already.
    """
    name = reference.removesuffix(".yaml").strip("/").replace("/", "-")
    target = file or Path(f"{name}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"{target}: the name of a recipe file ends in .yaml")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists already", do="choose another file, or pass --overwrite")
    text = flat_recipe(reference, target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, text)
    return target


def _seen_from(folder: Path, base: Path, written: str) -> str:
    """Return a path relative to ``folder`` that a file gives relative to ``base``."""
    if written.startswith("~") or Path(written).is_absolute() or base.resolve() == folder.resolve():
        return written
    return Path(os.path.relpath(base / written, folder)).as_posix()


def _path_keys(reference: str, tree: dict[str, Any]) -> list[KeyPath]:
    """Return the keys that hold paths, those inside choices included."""
    found = list(_paths_in(load_any_recipe(reference).recipe))
    keys = [path for path in found if isinstance(get_value(tree, path), str)]
    for choice, options in (tree.get("choices") or {}).items():
        for option, changes in options.items():
            chosen = load_any_recipe(reference, [f"choose.{choice}={option}"]).recipe
            for path in _paths_in(chosen):
                for key in changes or {}:
                    start = split_key(key)
                    inside = ("choices", choice, option, key, *path[len(start) :])
                    if path[: len(start)] == start and isinstance(get_value(tree, inside), str):
                        keys.append(inside)
    return keys


def _paths_in(section: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the keys of a validated recipe that hold paths."""
    if isinstance(section, Path):
        yield path
    elif isinstance(section, BaseModel):
        for name, info in type(section).model_fields.items():
            yield from _paths_in(getattr(section, name), (*path, info.alias or name))
    elif isinstance(section, dict):
        for key, value in section.items():
            yield from _paths_in(value, (*path, key))
    elif isinstance(section, tuple):
        for index, value in enumerate(section):
            yield from _paths_in(value, (*path, index))


@dataclass
class _Remarks:
    """Comments of a file."""

    head: list[str] = field(default_factory=list)
    """Lines at the top of the file."""
    above: dict[int, list[str]] = field(default_factory=dict)
    """Comment lines directly above a line, by line number from 1."""
    behind: dict[int, str] = field(default_factory=dict)
    """Comment at the end of a line, by line number from 1."""


def _remarks(file: Path) -> _Remarks:
    """Read the comments of a recipe file."""
    text = file.read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    found, block = _Remarks(), list[str]()
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("#"):
            block.append(line.lstrip())
            continue
        if len(block) == number - 1:
            found.head = block
        elif block:
            found.above[number] = [remark.removeprefix("#").strip() for remark in block]
        block = []
    for token in _tokens(YAML(typ="rt", pure=True).load(text)):
        place = token.start_mark
        if lines[place.line][: place.column].strip():
            remark = token.value.splitlines()[0]
            found.behind[place.line + 1] = remark.removeprefix("#").strip()
    return found


def _tokens(node: Any) -> Iterator[CommentToken]:
    """Yield the comments that the parser attached to its nodes."""
    if isinstance(node, CommentToken):
        yield node
    elif isinstance(node, CommentedMap | CommentedSeq):
        yield from _tokens([node.ca.comment, *node.ca.items.values()])
        for inner in node.values() if isinstance(node, CommentedMap) else node:
            yield from _tokens(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _tokens(inner)


def _by_key(origins: Origins, remarks: dict[str, _Remarks]) -> dict[KeyPath, _OfKey]:
    """Assign each comment to the outermost key of its line."""
    first: dict[str, KeyPath] = {}
    for path, origin in origins.items():
        if origin not in first or len(path) < len(first[origin]):
            first[origin] = path
    found: dict[KeyPath, _OfKey] = {}
    for origin, path in first.items():
        file, _, line = origin.rpartition(":")
        above, behind = remarks[file].above, remarks[file].behind
        if int(line) in above or int(line) in behind:
            found[path] = above.get(int(line), []), behind.get(int(line))
    return found


def _add_remarks(node: CommentedMap, path: KeyPath, remarks: _OfKey) -> None:
    """Attach comments to the last key of ``path``: behind a plain value, else above the key."""
    key, (above, behind) = path[-1], remarks
    if behind is not None and not isinstance(node[key], dict | list):
        node.yaml_add_eol_comment(behind, key)
    elif behind is not None:
        above = [*above, behind]
    if above:
        column = INDENT * sum(isinstance(part, str) for part in path[:-1])
        node.yaml_set_comment_before_after_key(key, before="\n".join(above), indent=column)


def _commented(value: Any, path: KeyPath, remarks: dict[KeyPath, _OfKey]) -> Any:
    """Build YAML nodes of plain values: short ones on one line, comments above or behind their
    keys."""
    if not isinstance(value, dict | list):
        return value
    node: CommentedMap | CommentedSeq
    if isinstance(value, dict):
        node = CommentedMap()
        for key, item in value.items():
            inner = (*path, key)
            node[key] = _commented(item, inner, remarks)
            if inner in remarks:
                _add_remarks(node, inner, remarks[inner])
    else:
        node = CommentedSeq(
            [_commented(item, (*path, index), remarks) for index, item in enumerate(value)]
        )
    below = any(len(key) > len(path) and key[: len(path)] == path for key in remarks)
    if path and not below and len(json.dumps(value)) <= FLOW_WIDTH:
        node.fa.set_flow_style()
    return node
