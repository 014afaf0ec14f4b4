"""Inputs that nobody should have written: recipes, records, configurations, weights, tokenizers.

Each is refused and named; some may be read where that loses nothing (``harmless``).
"""

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.faults.engine import Fault
from tests.faults.workspace import TASKS

Write = Callable[[Path], object]

HUGE = 10**18
VALUES: tuple[Any, ...] = (HUGE, -1, 1e300, "words", [], {"a": 1})
"""In place of each value of the recipe."""

ENORMOUS = ("model.d_model=65536", "model.d_ff=262144", "model.n_layers=1000")


@dataclass(frozen=True)
class Case:
    """A file written in some wrong way, before a task reads it."""

    task: str
    file: str
    what: str
    write: Write
    harmless: bool = False


def inputs(reference: Path) -> Iterator[Fault]:
    """All of them."""
    yield from recipe_values()
    yield Fault(
        "recipes",
        "train: a model that no machine holds",
        TASKS["train"],
        names=("memory",),
        arguments=(*TASKS["train"].arguments, *ENORMOUS),
        must_refuse=True,
        again=False,
    )
    cases = [*recipe_texts(), *records(), *configurations(reference), *weights(), *tokenizers()]
    for case in cases:
        task = TASKS[case.task]
        yield Fault(
            "malformed",
            f"{case.task}: {case.file}: {case.what}",
            task,
            strike=partial(_rewritten, file=case.file, write=case.write),
            names=(Path(case.file).name, case.file.partition("/")[0], "shards.path"),
            arguments=task.arguments,
            must_refuse=not case.harmless,
            again=False,
        )


def _rewritten(work: Path, file: str, write: Write) -> None:
    path = work / file
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)


def recipe_values() -> Iterator[Fault]:
    """Each value of the recipe replaced by each of the wrong ones."""
    text = (Path(__file__).parent / "workspace.py").read_text().split('RECIPE = """\\\n')[1]
    tree = YAML(typ="safe").load(text.split('"""')[0])
    for key in _keys(tree, ()):
        for value in VALUES:
            dotted = ".".join(map(str, key))
            yield Fault(
                "recipes",
                f"plan: {dotted} = {str(value)[:30]}",
                TASKS["plan"],
                names=(dotted, str(key[-1]), str(key[0])),
                arguments=("plan", "recipe.yaml", f"{dotted}={json.dumps(value)}"),
                again=False,
            )


def _keys(tree: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, dict | list) and value:
            yield from _keys(value, (*path, key))
        else:
            yield (*path, key)


def _bytes(data: bytes) -> Write:
    return lambda path: path.write_bytes(data)


def _edited(change: Callable[[bytes], bytes]) -> Write:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def recipe_texts() -> Iterator[Case]:
    """Files that are no recipe."""
    texts: dict[str, bytes] = {
        "empty": b"",
        "a list": b"- 1\n- 2\n",
        "one word": b"recipe\n",
        "binary": bytes(range(256)),
        "UTF-16": "name: x".encode("utf-16"),
        "Latin-1": b"name: caf\xe9\n",
        "deep lists": b"a: " + b"[" * 5000,
        "deep maps": b"a: " + b"{a: " * 5000,
        "an alias": b"a: &x 1\nb: *x\n",
        "a tag": b"a: !!python/object:os.system {}\n",
        "a tab": b"a:\n\tb: 1\n",
        "an open quote": b'a: "x\n',
        "a key twice": b"a: 1\na: 2\n",
        "a list as key": b"? [a]\n: 1\n",
        "two documents": b"a: 1\n---\nb: 2\n",
        "NUL": b"a: x\0y\n",
        "a megabyte of comment": b"#" * (2 << 20),
        "a number that never ends": b"seed: " + b"9" * 10_000 + b"\n",
        "itself as parent": b"extends: recipe.yaml\n",
        "no such parent": b"extends: nowhere.yaml\n",
        "a list as parent": b"extends: [a]\n",
        "a surrogate": b'name: "\\ud800"\n',
        "an infinity": b"parametrization: {learning_rate: .inf}\n",
        "a date": b"name: 2001-01-01\n",
    }
    for what, data in texts.items():
        yield Case("plan", "recipe.yaml", what, _bytes(data))
    added = {
        "a name with a slash": b"name: a/b",
        "a name that is too long": b"name: " + b"a" * 300,
        "paths with NUL": b'shards: {path: "a\\0b"}',
    }
    for what, line in added.items():
        key = line.partition(b":")[0]
        change = partial(_replace_line, key=key, line=line)
        yield Case("train", "recipe.yaml", what, _edited(change))


def _replace_line(data: bytes, key: bytes, line: bytes) -> bytes:
    lines = data.split(b"\n")
    return b"\n".join(line if each.startswith(key + b":") else each for each in lines)


def records() -> Iterator[Case]:
    """Sources of text that are none."""
    lines: dict[str, bytes] = {
        "empty": b"",
        "half a record": b'{"text": "abc',
        "a list": b"[1]\n",
        "a number as text": b'{"text": 5}\n',
        "no text": b'{"id": "a"}\n',
        "null as text": b'{"text": null}\n',
        "deep": b'{"text": ' + b"[" * 100_000 + b"\n",
        "Latin-1": b'{"text": "caf\xe9 "}\n',
        "NUL bytes": b"\0" * 1000,
        "a huge number": b'{"text": "a", "id": ' + b"9" * 5000 + b"}\n",
        "gzip under another name": gzip.compress(b'{"text": "a"}\n'),
        "ids twice of the wrong type": b'{"text": "abc", "id": {"a": 1}}\n',
    }
    for what, data in lines.items():
        yield Case("build", "texts/prose.jsonl", what, _bytes(data))
    yield Case("build", "texts/prose.jsonl", "a folder", _folder)
    whole = gzip.compress(b'{"text": "abc def ghi jkl mno pqr stu"}\n' * 50, mtime=0)
    packed = {
        "cut": whole[:-9],
        "no gzip": b'{"text": "a"}\n',
        "wrong sum": whole[:-8] + bytes(4) + whole[-4:],
        "garbage behind": whole + b"garbage",
        "only a head": whole[:10],
    }
    for what, data in packed.items():
        yield Case("build", "texts/prose.jsonl", f"gzip, {what}", partial(_as_other, data, ".gz"))
    tables = {
        "no Parquet": b"PAR1" + bytes(100) + b"PAR1",
        "only a magic": b"PAR1",
        "empty": b"",
        "text": b"text\nabc\n",
    }
    for what, data in tables.items():
        write = partial(_as_parquet, data)
        yield Case("build", "texts/prose.jsonl", f"Parquet, {what}", write)
    for what, data in {
        "Latin-1": b"caf\xe9 " * 9,
        "UTF-16": ("a b " * 30).encode("utf-16"),
    }.items():
        yield Case("build", "texts/notes/3.txt", what, _bytes(data))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_other(data: bytes, suffix: str, path: Path) -> None:
    path.unlink()
    path.with_name(path.name + suffix).write_bytes(data)
    _in_recipe(path, b"texts/prose.jsonl", b"texts/prose.jsonl" + suffix.encode())


def _as_parquet(data: bytes, path: Path) -> None:
    path.unlink()
    path.with_name("prose.parquet").write_bytes(data)
    _in_recipe(path, b"texts/prose.jsonl, reader: jsonl", b"texts/prose.parquet, reader: parquet")


def _in_recipe(path: Path, old: bytes, new: bytes) -> None:
    recipe = path.parents[1] / "recipe.yaml"
    data = recipe.read_bytes()
    assert old in data
    recipe.write_bytes(data.replace(old, new))


def configurations(reference: Path) -> Iterator[Case]:
    """Configurations of Hugging Face folders: texts that are none, and each value replaced."""
    file = "exported/config.json"
    texts = {
        "empty": b"",
        "a list": b"[]",
        "half": b'{"model_type": "lla',
        "deep": b"[" * 100_000,
        "Latin-1": b'{"model_type": "caf\xe9"}',
        "no type": b"{}",
        "a list as type": b'{"model_type": []}',
        "a map as type": b'{"model_type": {}}',
        "an unknown type": b'{"model_type": "bert"}',
        "only a type": b'{"model_type": "llama"}',
    }
    for what, data in texts.items():
        yield Case("import", file, what, _bytes(data))
    known = json.loads((reference / file).read_text())
    needed = [
        *("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"),
        *("vocab_size", "max_position_embeddings", "num_key_value_heads", "head_dim"),
        *("rms_norm_eps", "rope_parameters", "hidden_act", "tie_word_embeddings"),
        *("attention_bias", "rope_theta"),
    ]
    for key in needed:
        for value in (HUGE, -1, "words", [1], {"a": 1}):
            changed = json.dumps(known | {key: value}).encode()
            yield Case("import", file, f"{key} = {value}", _bytes(changed), harmless=True)


def _header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def weights() -> Iterator[Case]:
    """Files of weights with wrong headers."""
    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    contents: dict[str, bytes] = {
        "empty": b"",
        "seven bytes": b"\0" * 7,
        "a header without end": struct.pack("<Q", 1 << 60),
        "a header that is a list": _header([]),
        "a header that is deep": _header(b"[" * 50_000),
        "a header that is binary": _header(b"\xff" * 20),
        "no tensors": _header({}),
        "an unknown tensor": _header({"x": one}, bytes(16)),
        "data that are missing": _header({"x": one}),
        "data that overlap": _header({"x": one, "y": one}, bytes(16)),
        "a negative place": _header({"x": one | {"data_offsets": [-1, 16]}}, bytes(16)),
        "a huge shape": _header({"x": one | {"shape": [1 << 62, 4]}}, bytes(16)),
        "an unknown type": _header({"x": one | {"dtype": "F7"}}, bytes(16)),
        "a pickle": b"\x80\x04N.",
    }
    for what, data in contents.items():
        yield Case("import", "exported/model.safetensors", what, _bytes(data))
    indices: dict[str, object] = {
        "a list": [],
        "no map": {},
        "a list as map": {"weight_map": ["a"]},
        "numbers as files": {"weight_map": {"a": 5}},
        "null as map": {"weight_map": None},
        "a file outside": {"weight_map": {"a": "../recipe.yaml"}},
        "a missing file": {"weight_map": {"a": "model-1.safetensors"}},
        "an empty map": {"weight_map": {}},
        "a name with NUL": {"weight_map": {"a": "a\0b"}},
    }
    for what, value in indices.items():
        write = _bytes(json.dumps(value).encode())
        yield Case("import", "exported/model.safetensors.index.json", what, write)


def tokenizers() -> Iterator[Case]:
    """Tokenizers that are none, in a folder that is evaluated and one that is exported."""
    texts = {
        "empty": b"",
        "a list": b"[]",
        "a map": b"{}",
        "deep": b"[" * 100_000,
        "binary": bytes(range(256)),
        "no model": b'{"version": "1.0", "model": null}',
        "another model": b'{"version": "1.0", "model": {"type": "Nothing"}}',
    }
    for what, data in texts.items():
        yield Case("export", "run/tokenizer/tokenizer.json", what, _bytes(data))
        yield Case("export", "run/tokenizer/tokenizer_config.json", what, _bytes(data))
