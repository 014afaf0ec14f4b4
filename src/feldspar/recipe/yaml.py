"""Read strict YAML 1.2 as plain values with line numbers; a file cannot create objects."""

import math
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import YAMLError

from feldspar.core.errors import UserError

SIZE_LIMIT_BYTES = 1 << 20
DEPTH_LIMIT = 100

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """Return a file's plain value and the line (from 1) of each key path in it.

    Raises UserError for a missing, too large, wrongly encoded or malformed file.
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"the recipe file {path} {reason}")
    data = path.read_bytes()
    if len(data) > SIZE_LIMIT_BYTES:
        raise UserError(f"{path} is larger than a recipe may be", allowed="at most 1 MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text", where=f"byte {error.start}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> tuple[Any, Lines]:
    """Return the plain value of ``text`` and the line of each key; ``name`` is used in errors."""
    value, lines = _parse(text, name)
    return deepcopy(value), dict(lines)


# The parser is slow, and an experiment loads its recipe for hundreds of runs.
@lru_cache(maxsize=256)
def _parse(text: str, name: str) -> tuple[Any, Lines]:
    parser = YAML(typ="rt", pure=True)
    parser.allow_duplicate_keys = False
    try:
        depth = 0
        for token in parser.scan(text):
            kind = type(token).__name__
            depth += kind.endswith("StartToken") - kind.endswith("EndToken")
            if depth > DEPTH_LIMIT:
                raise UserError(
                    f"{name} is nested too deeply", where=f"{name}:{token.start_mark.line + 1}"
                )
            if kind in ("AnchorToken", "AliasToken", "TagToken"):
                raise UserError(
                    f"{kind.removesuffix('Token').lower()}s are not allowed in a recipe",
                    where=f"{name}:{token.start_mark.line + 1}",
                    do="write the value out",
                )
        node = parser.load(text)
    except UserError:
        raise
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise UserError(f"malformed YAML: {problem}", where=where) from error
    lines: Lines = {}
    return _plain(node, (), lines, name), lines


def _plain(node: Any, path: KeyPath, lines: Lines, name: str) -> Any:
    if isinstance(node, CommentedMap):
        result = {}
        for key, value in node.items():
            text = str(key).lower() if isinstance(key, bool) else str(key)
            if key not in (node.lc.data or {}) or not isinstance(key, str | bool | int | float):
                where = ".".join(map(str, path)) or name
                raise UserError(
                    f"{where}: keys must be plain words, and merge keys are not allowed",
                    where=f"{name}:{lines.get(path, 1)}",
                    found=text,
                )
            if text in result:
                raise UserError(
                    f"{'.'.join(map(str, (*path, text)))}: this key is given twice",
                    where=f"{name}:{node.lc.key(key)[0] + 1}",
                )
            lines[(*path, text)] = node.lc.key(key)[0] + 1
            result[text] = _plain(value, (*path, text), lines, name)
        return result
    if isinstance(node, CommentedSeq):
        items = []
        for index, value in enumerate(node):
            lines[(*path, index)] = node.lc.item(index)[0] + 1
            items.append(_plain(value, (*path, index), lines, name))
        return items
    if node is None or isinstance(node, bool):
        return node
    if isinstance(node, float) and not math.isfinite(node):
        raise UserError(
            f"{'.'.join(map(str, path)) or name} is not a finite number",
            where=f"{name}:{lines.get(path, 1)}",
        )
    if isinstance(node, str) and "\0" in node:
        raise UserError(
            f"{'.'.join(map(str, path)) or name}: text must not contain the character NUL",
            where=f"{name}:{lines.get(path, 1)}",
        )
    for plain in (int, float, str):
        if isinstance(node, plain) and not isinstance(node, TaggedScalar):
            return plain(node)  # the parser's own types also hold the layout
    raise UserError(
        f"{'.'.join(map(str, path))}: a value must be text, a number, true, false or null",
        where=f"{name}:{lines.get(path, 1)}",
        found=node,
    )
