"""A reader's folder: the files that examples name, and what the real commands make of them."""

import json
import os
import shutil
from pathlib import Path

from feldspar.cli.main import run_with
from feldspar.evaluate.tasks.lm_eval_tasks import write_cloze_task
from feldspar.recipe.load import load_recipe
from tests.examples.shorten import PICTURES, ontology_text, shortened, write_texts
from tests.made_text import documents
from tests.tokens.chat_templates import CHATML, turn
from tests.vision.pictures import some_pictures, write_split

ROOT = Path(__file__).parents[2]
MINE = """\
schema_version: 1
name: mine
corpus:
  path: data/mine/documents
  sources: {notes: {reader: jsonl, path: texts/notes.jsonl}}
  split: {validation: 0.1, test: 0.1}
tokenizer: {type: train_bpe, vocab_size: 257}
shards: {path: data/mine/shards}
model: {n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32, max_sequence_length: 32}
parametrization: {learning_rate: 1e-2}
phases: [{name: all, length: 4 steps, batch: {sequences: 4}}]
evaluation:
  every: 100% of run
  validation_sequences: 4
  length_sweep: {lengths: [32, 64], measures: [loss_by_position], documents: 2}
runtime: {trackers: [], threads: 1}
study:
  vary: {parametrization.learning_rate: {low: 5e-3, high: 2e-2, points: 3}}
  targets:
    - {model.d_model: 8, phases.0.length: 2 steps}
    - {model.d_model: 12, phases.0.length: 8 steps}
    - {model.d_model: 20, phases.0.length: 24 steps}
    - {model.d_model: 32, phases.0.length: 60 steps}
"""
"""A recipe of the reader's own, with a study and a sweep."""
TWO_LANGUAGES = """\
schema_version: 1
name: languages
corpus:
  path: data/documents
  sources:
    english: {reader: jsonl, path: texts/english.jsonl}
    arabic: {reader: jsonl, path: texts/arabic.jsonl}
tokenizer: {type: train_bpe, vocab_size: 300}
shards: {path: data/shards}
"""
TALK = """\
extends: my-recipe.yaml
name: talk
tokenizer: {type: train_bpe, vocab_size: 300, special_tokens: [<end>, <|im_start|>, <|im_end|>]}
shards: {path: data/talk/shards}
phases:
  - name: chat
    length: 4 steps
    context_length: 128
    batch: {sequences: 2}
    loss: {on: target}
    data: {type: messages, path: talks.jsonl, template: chat.jinja}
model: {positions: rotary, max_sequence_length: 256}
"""
"""A recipe of the reader's own that reads conversations."""
SOURCES = ("notes", "english", "arabic")
READ_BY = (
    "slimpajama-dc/releases",
    "trunk",
    "bilingual/small",
    "alibi-interpolation/small",
    "composition/small",
)
"""Recipes whose sources have a text here too."""
POINTS = "flops,loss\n1e17,3.9\n1e18,3.4\n1e19,3.0\n1e20,2.7\n1e21,2.5\n"
MICRO = "runtime.micro_batch_sequences=2"
TRAINED = {
    "runs/crystal-small": ("crystal/small",),
    "runs/mediswift-small": ("mediswift/small",),
    "runs/alibi-interpolation-small": ("alibi-interpolation/small",),
    "runs/trunks/0": ("trunk",),
    "runs/lora": (
        "quickstart",
        "start_from={type: run, path: runs/quickstart}",
        "phases.0.lora={rank: 8, alpha: 16}",
    ),
    "runs/pilot": ("gns/small", "choose.batch=constant-8", MICRO, "phases.0.length=64 steps"),
    "runs/steered": ("gns/small", "choose.batch=closed-loop", MICRO),
}
"""Runs that are trained from shipped recipes."""
COPIES = {
    "runs/first": "runs/mine",
    "data/slimpajama-dc/documents": "data/quickstart/documents",
    "data/slimpajama-dc/shards": "data/quickstart/shards",
    "raw": "texts",
    "more": "texts",
    "gpt2": "downloads/gpt2",
    "release": "runs/quickstart/release",
}
"""Stand-ins for folders of the reader's or of papers."""


def write_recipes() -> None:
    """Write the reader's recipes into the current folder."""
    Path("talk.yaml").write_text(TALK)
    Path("my-recipe.yaml").write_text(MINE)
    Path("recipe.yaml").write_text(TWO_LANGUAGES)


def make_workspace() -> None:
    """Fill the current folder."""
    write_recipes()
    write_raw()
    run("quickstart", *shortened("quickstart", []))
    run("train", "my-recipe.yaml", "--out", "runs/mine")
    run("train", "talk.yaml", "--out", "runs/chat")
    run("scaling", "run", "my-recipe.yaml", "--out", "runs/family")
    for name, trained in zip("abcd", sorted(Path("runs/family/runs").iterdir()), strict=True):
        shutil.copytree(trained, f"runs/{name}")
    for out, (recipe, *overrides) in TRAINED.items():
        run("train", recipe, *shortened(recipe, overrides), *overrides, "--out", out)
    for name in ("revbifpn/small", "revbifpn/detection"):
        run("vision", "train", name, *shortened(name, []))
    run("corpus", "build", "bilingual/small", *shortened("bilingual/small", []))
    run("tokens", "build", "recipe.yaml")
    run("export", "runs/mine", "--out", "downloads/gpt2")
    run("export", "runs/alibi-interpolation-small", "--out", "exported")
    extend = "tokenizer extend --documents data/documents --corpus arabic --new-tokens 20"
    run(*extend.split(), "--base", "downloads/gpt2", "--out", "extended")
    for copy, original in COPIES.items():
        shutil.copytree(original, copy)


def run(*words: str) -> None:
    """Run a command of ours, which must succeed."""
    assert run_with(["--quiet", *words]) == 0, words


def write_raw() -> None:
    """Write what a reader has before the first command: texts, pictures, an ontology, points."""
    import pyarrow.parquet as parquet
    from pyarrow import Table

    Path("texts").mkdir()
    corpora = [load_recipe(recipe).recipe.corpus for recipe in READ_BY]
    names = [*SOURCES, *(name for corpus in corpora if corpus for name in corpus.sources)]
    for seed, name in enumerate(names):
        write_texts(Path("texts"), name, seed)
    shutil.copy("texts/notes.jsonl", "docs.jsonl")
    for name in ("a.parquet", "code.parquet"):
        parquet.write_table(
            Table.from_pylist([{"text": text} for text in documents(20, 300)]), name
        )
    for name in ("held-out.txt", "notes.txt", "README.md"):
        Path(name).write_text(documents(1, 1500)[0])
    phase = load_recipe("mediswift/small").recipe.phases[1]
    assert phase.pairs is not None and phase.pairs.template.labels is not None
    Path("go.obo").write_text(ontology_text(list(phase.pairs.template.labels.values)))
    Path("points.csv").write_text(POINTS)
    talk = [turn("user", "Where is the old house?"), turn("assistant", "By the river.")]
    Path("talks.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 6)
    Path("chat.jinja").write_text(CHATML)
    write_split(Path("data/fashion-mnist/train"), *some_pictures(1, PICTURES))
    write_split(Path("data/fashion-mnist/t10k"), *some_pictures(2, 24))
    shutil.copytree(ROOT / "docs/results", "docs/results")
    write_cloze_task(Path("tasks"), documents(6, 400, seed=2), "held_out")


class Folder:
    """The files of a folder as they were, which come back after each example."""

    def __init__(self, work: Path, kept: Path) -> None:
        shutil.copytree(work, kept)
        self.work, self.kept = work, kept
        self.before = self.stamps()
        self.folders = {Path(place).relative_to(work) for place, _, _ in os.walk(work)}

    def stamps(self) -> dict[str, tuple[int, ...]]:
        """Size, time and inode of each file."""
        return {
            os.path.relpath(place, self.work) + "/" + name: stamp(f"{place}/{name}")
            for place, _, names in os.walk(self.work)
            for name in names
        }

    def restore(self) -> None:
        """Remove what is new, and bring back what was changed or removed."""
        now = self.stamps()
        for name in now.keys() - self.before.keys():
            (self.work / name).unlink()
        for name in {name for name, known in self.before.items() if now.get(name) != known}:
            (self.work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.kept / name, self.work / name)
            self.before[name] = stamp(self.work / name)
        for place, _, _ in os.walk(self.work, topdown=False):
            if Path(place).relative_to(self.work) not in self.folders:
                Path(place).rmdir()


def stamp(path: str | Path) -> tuple[int, ...]:
    """Size, time and inode of a file."""
    known = Path(path).stat()
    return known.st_size, known.st_mtime_ns, known.st_ino
