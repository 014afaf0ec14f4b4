"""Extending a tokenizer from documents: recipes, shards, the command, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from feldspar.cli import tokenizer as tokenizer_command
from feldspar.core.errors import UserError
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.tokens import ExtendTokenizer, ExtendWith, ShardSettings
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.contract import decompositions
from feldspar.tokens.tokenizer.extend import extend_tokenizer
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.tokenizer_sources import tokenizer_from_settings
from tests.tokens.bases import base, cipher, english
from tests.tokens.conftest import write_documents

RECIPE = """\
schema_version: 1
name: extended
tokenizer: {{type: extend, base: {base}, with: {{corpus: arabic, new_tokens: 60}}, vocab_size: 763}}
model: {{n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32, max_sequence_length: 16}}
parametrization: {{learning_rate: 1e-2}}
phases: [{{name: all, length: 10 steps, batch: {{sequences: 4}}}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and documents in two languages."""
    path = tmp_path_factory.mktemp("extend")
    base("gpt2").save(path / "base")
    texts = {"english": english()[:50], "arabic": cipher()[:50]}
    splits = {"train": texts, "validation": {name: part[:5] for name, part in texts.items()}}
    write_documents(path / "documents", splits)
    return path


def settings(folder: Path, **changed: Any) -> ExtendTokenizer:
    given = {"corpus": "arabic", "new_tokens": 60} | changed
    return ExtendTokenizer.model_validate({"base": str(folder / "base"), "with": given})


def test_a_recipe_asks_for_it_and_shards_keep_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(base=folder / "base"))
    recipe = load_recipe(str(tmp_path / "recipe.yaml")).recipe
    assert recipe.model.vocab_size == 763
    asked, shards = recipe.tokenizer, ShardSettings(path=tmp_path / "shards")
    assert isinstance(asked, ExtendTokenizer)
    report = build_shards(folder / "documents", asked, shards, seed=1, workers=1)
    assert report.vocab_size == 763
    old = TextTokenizer.load(folder / "base")
    new = TextTokenizer.load(ShardSet.open(shards.path).tokenizer)
    assert new.extension is not None and new.extension.base_digest == old.digest
    assert new.extension.new_tokens == 60 and new.extension.characters == "arabic"
    assert len(decompositions(old, new)) == 60
    assert build_shards(folder / "documents", asked, shards, seed=1, workers=1).up_to_date
    base("gpt2").save(tmp_path / "moved")
    moved = asked.model_copy(update={"base": str(tmp_path / "moved")})
    assert build_shards(folder / "documents", moved, shards, seed=1, workers=1).up_to_date
    other = settings(folder, new_tokens=61)
    with pytest.raises(UserError, match="other settings"):
        build_shards(folder / "documents", other, shards, seed=1, workers=1)


def test_the_command_and_transformers(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    app, output = typer.Typer(), tmp_path / "extended"
    tokenizer_command.register(app)
    given = f"tokenizer extend --base {folder / 'base'} --documents {folder / 'documents'}"
    given += f" --corpus arabic --new-tokens 60 --out {output}"
    told = CliRunner().invoke(app, given.split(), catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert "new tokens: 60 (continued, arabic)" in told.stdout and "100.00%" in told.stdout
    again = CliRunner().invoke(app, [*given.split(), "--overwrite", "--json"])
    report = json.loads(again.stdout)["extension"]["report"]
    assert report["sources"]["english"]["identity_rate"] == 1
    ours = TextTokenizer.load(output)
    theirs = transformers.AutoTokenizer.from_pretrained(str(output), local_files_only=True)
    text = f"{english()[0]} {cipher()[60]}"
    assert theirs(text)["input_ids"] == ours.encode_documents([text])[0].tolist()
    assert theirs.decode(theirs(text)["input_ids"]) == text
    assert len(theirs) == ours.vocab_size


def test_control_tokens_come_after_the_new_pieces(folder: Path) -> None:
    asked = settings(folder).model_copy(update={"special_tokens": ("<|a|>", "</s>")})
    new = tokenizer_from_settings(asked, folder / "documents", 0)
    assert new.piece(763) == "<|a|>" and new.vocab_size == 764
    assert new.extension is not None and new.extension.new_tokens == 60
    assert len(decompositions(base("gpt2"), new)) == 61


def test_fewer_pieces_than_asked(folder: Path) -> None:
    new = tokenizer_from_settings(settings(folder, new_tokens=10**6), folder / "documents", 0)
    assert new.extension is not None
    assert 60 < new.extension.new_tokens < 10**5
    assert new.extension.report["asked_tokens"] == 10**6
    declared = settings(folder).model_copy(update={"vocab_size": 800})
    with pytest.raises(UserError, match=r"declares 800 tokens, but the extended tokenizer has 763"):
        tokenizer_from_settings(declared, folder / "documents", 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"corpus": "arabik"}, "the documents have no source 'arabik'"),
        ({"corpus": ["arabic", "english"]}, "leave one of the old language out"),
        ({"script": "greek"}, "gives no new token"),
        ({"script": "klingon"}, "a script 'klingon'"),
        ({"script": "latin"}, "of the words of source english contain a target character"),
    ],
)
def test_what_is_refused(folder: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tokenizer_from_settings(settings(folder, **changed), folder / "documents", 0)


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="either script or characters"):
        ExtendWith(corpus="a", new_tokens=1, script="arabic", characters="é")


def options(**changed: Any) -> ExtendWith:
    return ExtendWith.model_validate({"corpus": "new", "new_tokens": 20} | changed)


def test_a_language_in_the_same_characters_when_accepted() -> None:
    latin = options(script="latin", allow_resegmentation=True)
    new = extend_tokenizer(
        base("llama"), latin, english(), {"old": english()[:5]}, {"new": english()[5:10]}
    )
    assert new.extension is not None
    old = new.extension.report["sources"]["old"]
    assert old["identity_rate"] < 1 and old["target_documents"] == 5
    assert old["after"]["tokens_per_word"] < old["before"]["tokens_per_word"]


def test_characters_in_place_of_a_script() -> None:
    some = options(characters="اب", new_tokens=3)
    new = extend_tokenizer(
        base("llama"), some, cipher(), {"old": english()[:5]}, {"new": cipher()[:5]}
    )
    pieces = [new.piece(n) or "" for n in range(base("llama").vocab_size, new.vocab_size)]
    assert pieces and all(set(piece) <= set("اب▁") for piece in pieces)


def test_texts_that_cannot_be_measured_or_written() -> None:
    with pytest.raises(UserError, match="source old has no words"):
        extend_tokenizer(base("llama"), options(), cipher(), {"old": [" "]}, {"new": cipher()[:5]})
    with pytest.raises(UserError, match="lone surrogate at byte 3"):
        extend_tokenizer(
            base("llama"),
            options(),
            ["ا \ud800"],
            {"old": english()[:5]},
            {"new": cipher()[:5]},
        )
