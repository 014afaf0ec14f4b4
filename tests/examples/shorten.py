"""Overrides that make a shipped recipe small: text that is made here, few and short steps."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feldspar.recipe.data_root import DataRecipe
from feldspar.recipe.load import load_any_recipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.detection import CanvasImages
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch
from feldspar.recipe.sections.tokens import ExtendTokenizer, TrainBpe
from feldspar.recipe.vision_root import VisionRecipe
from tests.made_text import documents
from tests.tokens.bases import CIPHER
from tests.vision.pictures import KINDS

STEPS = "2 steps"
TOKENS = "4096 tokens"
"""Where the batch follows the noise scale, so that steps are not known ahead."""
VOCABULARY = 300
NEW_TOKENS = 20
PICTURES = 96
CANVASES = 6
TEXTS = 160
ONTOLOGY = {"path": "data/mediswift/hpo", "file": "go.obo", "root": "GO:0008150", "least": 5}
CYRILLIC = {ord("a") + place: 0x430 + place for place in range(26)}
FLAT = [{"to": 1e-3, "over": "rest"}]


def shortened(reference: str, overrides: list[str]) -> list[str]:
    """Return overrides that make a recipe train in a second on the workspace's text."""
    recipe = load_any_recipe(reference, overrides).recipe
    changes: dict[str, Any] = {}
    if isinstance(recipe, VisionRecipe):
        changes |= dict(_of_images(recipe))
    else:
        changes |= dict(_of_text(recipe))
    if isinstance(recipe, Recipe):
        changes |= {"model.n_layers": 1, "evaluation.validation_sequences": 4}
    if not isinstance(recipe, DataRecipe):
        changes |= {"evaluation.every": "100% of run"}
        changes |= dict(_of_phases(recipe))
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def _of_images(recipe: VisionRecipe) -> Iterator[tuple[str, Any]]:
    if isinstance(recipe.images, CanvasImages):
        yield "images.train_images", CANVASES
        yield "images.validation_images", CANVASES
        return
    yield "images.train_images", PICTURES
    yield "model.classes", len(KINDS)


def _of_text(recipe: Recipe | DataRecipe) -> Iterator[tuple[str, Any]]:
    corpus, tokenizer = recipe.corpus, recipe.tokenizer
    if corpus is not None and corpus.ontology is not None:
        yield "corpus.ontology", ONTOLOGY
    elif corpus is not None:
        yield "corpus.sources", {name: source_of(name) for name in corpus.sources}
        yield "corpus.split", {"validation": 0.1, "test": 0.1}
    if isinstance(tokenizer, TrainBpe) and tokenizer.vocab_size > VOCABULARY:
        yield "tokenizer.vocab_size", VOCABULARY
    if isinstance(tokenizer, ExtendTokenizer):
        yield "tokenizer.with.new_tokens", NEW_TOKENS
        yield "tokenizer.vocab_size", VOCABULARY + NEW_TOKENS


def _of_phases(recipe: Recipe | VisionRecipe) -> Iterator[tuple[str, Any]]:
    for index, phase in enumerate(recipe.phases):
        steered = isinstance(getattr(phase, "batch", None), NoiseScaleBatch)
        yield f"phases.{index}.length", TOKENS if steered else STEPS
        if phase.learning_rate is not None:
            yield f"phases.{index}.learning_rate", FLAT
        if isinstance(recipe, VisionRecipe):
            yield f"phases.{index}.batch.images", 12


def source_of(name: str) -> dict[str, str]:
    """Return a source that reads the workspace's text of that name."""
    return {"licence": "CC0-1.0", "reader": "jsonl", "path": f"texts/{name}.jsonl"}


def write_texts(folder: Path, name: str, seed: int) -> None:
    """Write the text of one source; those in other letters are a cipher."""
    texts = documents(TEXTS, 300, 900, seed)
    cipher = CYRILLIC if name == "ukrainian" else CIPHER if name == "arabic" else {}
    if cipher:
        texts = [text.lower().translate(cipher) for text in texts]
    lines = (json.dumps({"id": f"{name}-{n}", "text": text}) for n, text in enumerate(texts))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def ontology_text(labels: list[str]) -> str:
    """Write an ontology in OBO: a dozen terms with definitions below each label."""
    root = ONTOLOGY["root"]
    terms = [f"id: {root}\nname: Root"]
    for branch, label in enumerate(labels, 1):
        terms.append(f"id: GO:{branch}\nname: {label}\nis_a: {root}")
        for number, text in enumerate(documents(24, 60, 120, branch)):
            line = " ".join(text.split())
            terms.append(
                f'id: GO:{branch}{number:03}\nname: Part {branch} {number}\ndef: "{line}" []\n'
                f"is_a: GO:{branch}"
            )
    return "format-version: 1.2\n\n" + "".join(f"[Term]\n{term}\n\n" for term in terms)
