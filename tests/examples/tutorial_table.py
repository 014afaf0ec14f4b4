"""Changes that make each tutorial short enough for a test, and text made instead of fetched."""

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from feldspar.cli.main import run_with
from feldspar.recipe.load import load_recipe
from tests.examples.shorten import write_texts
from tests.made_text import documents
from tests.tokens.chat_templates import CHATML, turn

LEFT_OUT = "true"
"""The command of the shell that stands for one that is left out."""


def nothing() -> None:
    """Prepare nothing: the page brings all that it needs."""


def write_code(folder: str, texts: list[str]) -> None:
    """Write texts as files of Python, one in a folder of its own."""
    for number, text in enumerate(texts):
        path = Path(folder) / f"part{number % 3}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(textwrap.wrap(text, 80)) + "\n")


def write_packages() -> None:
    """Write packages that share files, as releases and copied libraries do."""
    shared, old, other = (documents(12, 900, 1500, seed) for seed in range(3))
    passage = "Parse a given requirement string into its parts, such as name, specifier, URL, and "
    shared[0] += passage + "extras. Raises InvalidRequirement on a badly-formed requirement string."
    write_code("raw/pip-25.0", shared)
    write_code("raw/pip-24.0", [*shared[:6], *(text + " more" for text in shared[6:]), *old])
    write_code("raw/setuptools-75.8.0", [*shared[:3], *other, "short"])
    Path("raw/setuptools-75.8.0/table.py").write_text("numbers = [" + "1, " * 400 + "]\n")


def write_library() -> None:
    """Write the files that stand for the reader's own."""
    write_code("texts", documents(60, 900, 2500, 5))
    for number, text in enumerate(documents(20, 900, 2500, 6)):
        Path(f"texts/notes{number}.txt").write_text(text)


def write_sources(*recipes: str) -> Callable[[], None]:
    """Return a function that writes the text of each source of the recipes."""

    def write() -> None:
        Path("texts").mkdir()
        corpora = [load_recipe(recipe).recipe.corpus for recipe in recipes]
        names = {name: None for corpus in corpora if corpus for name in corpus.sources}
        for seed, name in enumerate(names):
            write_texts(Path("texts"), name, seed)

    return write


@dataclass(frozen=True)
class Page:
    """Changes to the commands of a page; its words stay as they are."""

    replaced: Mapping[str, str] = field(default_factory=dict)
    """Parts of commands and files, and what stands for them."""
    added: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Words that are added to a command of feldspar, by its beginning."""
    small: tuple[str, ...] = ()
    """Recipes that get the overrides of ``shortened``."""
    prepare: Callable[[], None] = nothing
    """Writes what commands that are left out would have fetched."""
    fixtures: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    """Files that are there at the end."""

    def shorter(self, command: str) -> str:
        """Return the command with its parts replaced."""
        for old, new in self.replaced.items():
            command = command.replace(old, new)
        return command

    def leaves_out(self, command: str) -> bool:
        """Tell whether the command does not run, so that it prints nothing."""
        return self.shorter(command).startswith((LEFT_OUT, "cat <<"))

    def words_added_to(self, command: str) -> tuple[str, ...]:
        """Return the words that come after all others."""
        starts = (start for start in self.added if command.startswith(f"feldspar {start}"))
        return self.added.get(next(starts, ""), ())


def overridden(**values: object) -> tuple[str, ...]:
    """Return words that set values; two underscores stand for a dot."""
    return tuple(f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in values.items())


def write_base() -> None:
    """Write a small model of Llama's class with a chat template, in place of an open one."""
    Path("texts").mkdir()
    write_texts(Path("texts"), "notes", 0)
    Path("chat.jinja").write_text(CHATML)
    talk = [turn("user", "Where is it?"), turn("assistant", "By the river.")]
    Path("talks.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 6)
    Path("base.yaml").write_text(BASE)
    run_quietly("train", "base.yaml", "--out", "base")
    run_quietly("export", "base", "--to", "downloads")


def run_quietly(*words: str) -> None:
    """Run a command of ours, which must succeed."""
    assert run_with(["--quiet", *words]) == 0, words


SHAPE = "n_layers: 1, d_model: 32, n_heads: 2, n_kv_heads: 1, d_ff: 64"
BASE = f"""\
schema_version: 1
name: base
corpus: {{path: data/base, sources: {{notes: {{reader: jsonl, path: texts/notes.jsonl}}}}}}
tokenizer: {{type: train_bpe, vocab_size: 300, special_tokens: [<end>, <|im_start|>, <|im_end|>]}}
shards: {{path: data/base-shards}}
model:
  {{{SHAPE}, max_sequence_length: 512,
   positions: rotary, feed_forward: swiglu, tied_embeddings: true}}
parametrization: {{type: sp, learning_rate: 1e-3}}
phases:
  - name: chat
    length: 2 steps
    context_length: 128
    batch: {{sequences: 2}}
    loss: {{on: target}}
    data: {{type: messages, path: talks.jsonl, template: chat.jinja}}
"""
"""A recipe that trains the stand-in of an open model."""
PAGES: Mapping[str, Page] = {
    "adapt-an-open-model": Page(
        replaced={
            "import smollm2-135m": "import downloads",
            "n_layers: 30, d_model: 576, n_heads: 9, n_kv_heads: 3, d_ff: 1536": SHAPE,
            "vocab_size: 49152": "vocab_size: 300",
            "max_sequence_length: 8192": "max_sequence_length: 512",
            "base: 100000": "base: 10000",
            "length: 8 steps": "length: 1 steps",
            "context_length: 128": "context_length: 256",
        },
        added={"chat": ("--max-new-tokens", "4"), "evaluate": ("--limit", "2000")},
        prepare=write_base,
        made=("cities/model.safetensors", "cities.gguf", "cities-lora/adapter_config.json"),
    ),
    "clean-a-corpus": Page(
        replaced={"pip install": LEFT_OUT, "vocab_size: 2048": "vocab_size: 300"},
        prepare=write_packages,
        made=("documents-report.html", "within/report.json", "shards/manifest.json"),
    ),
    "long-context": Page(
        small=("long.yaml", "two.yaml"),
        prepare=write_sources("alibi-interpolation/small"),
        made=("rotary-long/model.json",),
    ),
    "plan-and-run-a-family": Page(
        replaced={
            "feldspar coordinate-check": LEFT_OUT,
        },
        added={
            "scaling run": overridden(
                model__n_layers=2, phases__0__length="0.2 tokens_per_parameter"
            ),
            "plan mine.yaml choose.size=187k": overridden(model__n_layers=2),
        },
        small=("mine.yaml",),
        prepare=write_sources("cerebras-gpt/small"),
        made=("runs/family/scaling.json",),
    ),
    "sparse-training": Page(
        small=("wide.yaml", "then-dense.yaml"),
        prepare=write_sources("granularity/small"),
        made=("compared.html",),
    ),
    "teach-a-language": Page(
        added={
            "train": overridden(
                phases__0__length="1 steps",
                phases__1__length="1 steps",
                evaluation__validation_sequences=1,
            ),
            "evaluate": ("--limit", "256"),
            "reproduce": ("--dry-run",),
        },
        fixtures=("smollm2_wheel",),
        made=("adapted/new_rows.jsonl", "ukrainian/tokenizer.json", "ukrainian.gguf"),
    ),
    "train-on-your-own-text": Page(
        replaced={"python - <<": "cat <<"},
        added={"train": overridden(phases__0__length="2 steps")},
        prepare=write_library,
        made=("runs/mine/report.html", "runs/mine/release/manifest.json"),
    ),
    "vision": Page(
        replaced={
            "length: 3 epochs": "length: 2 steps",
            "python - <<'END'\nimport json": "cat <<'END'\nimport json",
        },
        added={"vision export": ("--format", "pt2")},
        small=("revbifpn/detection",),
        made=("digits.onnx", "found.json"),
    ),
}
"""By the name of the page."""
