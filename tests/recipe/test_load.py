"""Order of resolution, choices, parents, paths, origins, and the resolved recipe."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.recipe.load import load_any_recipe, load_recipe
from feldspar.recipe.shipped import find_recipe, shipped_names
from feldspar.recipe.tree import get_value, merge, origin_of, set_value, split_key
from feldspar.recipe.write import recipe_text

CHOICES = """\
choices:
  size:
    small: {}
    large:
      model.d_model: 128
      phases.0.batch.sequences: 8
    huge: {model.d_model: 256}
  width:
    none: {}
    wide: {model.d_model: 512}
choose: {size: small}
"""

Write = Callable[[str], Path]


@pytest.fixture
def with_choices(small: Path) -> Path:
    small.write_text(small.read_text() + CHOICES)
    return small


def test_overrides_replace_the_value_that_they_name(small: Path) -> None:
    overrides = ["model.d_model=128", "phases.0.batch={tokens: 512}", "optimizer.epsilon=1e-9"]
    loaded = load_recipe(str(small), overrides)
    assert loaded.recipe.model.d_model == 128
    assert loaded.recipe.phases[0].batch.model_dump()["tokens"] == 512
    assert loaded.recipe.optimizer.epsilon == 1e-9
    assert loaded.recipe.optimizer.betas == (0.9, 0.95)
    assert get_value(loaded.tree, split_key("phases.0.batch")) == {"tokens": 512}
    assert get_value(loaded.tree, split_key("phases.7.batch")) is None


def test_a_variant_named_by_a_word_can_be_filled_in(small: Path) -> None:
    loaded = load_recipe(str(small), ["model.positions=rotary", "model.positions.fraction=0.5"])
    assert loaded.recipe.model.positions.model_dump()["fraction"] == 0.5


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("model", "is not an override"),
        ("=1", "is not a key"),
        ("a..b=1", "is not a key"),
        ("phases.1.name=x", "1 is not an index of a list of 1"),
        ("phases.-1.name=x", "not an index of a list"),
        ("phases.\u00b2.name=x", "not an index of a list"),
        ("model.d_model=[1", "malformed YAML"),
        ("model.d_model=&a 1", "anchors"),
    ],
)
def test_bad_overrides(small: Path, override: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        load_recipe(str(small), [override])


def test_choices_come_after_the_file_and_before_the_command_line(with_choices: Path) -> None:
    def d_model(*overrides: str) -> int:
        return load_recipe(str(with_choices), list(overrides)).recipe.model.d_model

    assert d_model() == 64
    assert d_model("choose.size=large") == 128
    assert d_model("choose.size=large", "choose.width=wide") == 512  # applied as written
    assert d_model("model.d_model=32", "choose.size=large") == 32
    loaded = load_recipe(str(with_choices), ["choose.size=large"])
    assert loaded.recipe.phases[0].batch.model_dump()["sequences"] == 8


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("choose.size=larg", "did you mean 'large'"),
        ("choose.sizes=large", "did you mean 'size'"),
        ("choose.size=zzz", "not one of its options"),
        ("choices=5", "choices: input should be"),
        ("choices={size: 5}", "choices.size: input should be"),
        ("choices={size: {small: 5}}", "choices.size.small: input should be"),
        ("choose=[size]", "choose: input should be"),
    ],
)
def test_bad_choices(with_choices: Path, override: str, part: str) -> None:
    with pytest.raises(UserError, match=part) as caught:
        load_recipe(str(with_choices), [override])
    assert caught.value.where == "command line" or "choices" in override


def test_a_choice_of_an_unknown_key_names_the_line(with_choices: Path) -> None:
    with_choices.write_text(with_choices.read_text().replace("model.d_model: 256", "modle: 2"))
    with pytest.raises(UserError, match="modle: unknown key") as caught:
        load_recipe(str(with_choices), ["choose.size=huge"])
    line = 1 + with_choices.read_text().splitlines().index("    huge: {modle: 2}")
    assert caught.value.where == f"{with_choices}:{line}"


def test_extends_merges_mappings_and_replaces_lists(small: Path) -> None:
    child = small.parent / "sub" / "child.yaml"
    child.parent.mkdir()
    child.write_text(
        "extends: ../small.yaml\nname: child\nmodel: {d_model: 128}\n"
        "phases: [{name: one, length: 1 steps, batch: {sequences: 1}}]\n"
    )
    loaded = load_recipe(str(child))
    assert loaded.recipe.name == "child"
    assert (loaded.recipe.model.d_model, loaded.recipe.model.d_ff) == (128, 128)
    assert [phase.name for phase in loaded.recipe.phases] == ["one"]
    assert origin_of(loaded.origins, ("model", "d_model")) == f"{child}:3"
    assert origin_of(loaded.origins, ("model", "d_ff")) == f"{child.parent / '../small.yaml'}:7"


def test_extends_a_shipped_recipe(small: Path) -> None:
    child = small.parent / "child.yaml"
    child.write_text("extends: quickstart\nname: mine\n")
    assert load_recipe(str(child)).recipe.model == load_recipe("quickstart").recipe.model


def test_later_parents_win_over_earlier_ones_and_the_file_over_all(small: Path) -> None:
    other = small.parent / "other.yaml"
    other.write_text("name: other\nmodel: {d_model: 256, n_heads: 8}\n")
    child = small.parent / "child.yaml"
    child.write_text("extends: [small.yaml, other.yaml]\nmodel: {d_model: 128}\n")
    loaded = load_recipe(str(child), ["seed=3"])
    assert loaded.recipe.name == "other"
    assert (loaded.recipe.model.d_model, loaded.recipe.model.n_heads) == (128, 8)
    assert loaded.recipe.phases == load_recipe(str(small)).recipe.phases
    assert origin_of(loaded.origins, ("model", "n_heads")) == f"{other}:2"
    assert loaded.arguments == f"{child} seed=3"


def test_bad_parents(small: Path) -> None:
    small.write_text("extends: other.yaml\n" + small.read_text())
    other = small.parent / "other.yaml"
    with pytest.raises(UserError, match=r"other.yaml does not exist") as caught:
        load_recipe(str(small))
    assert caught.value.where == f"{small}:1"
    other.write_text("extends: small.yaml\n")
    with pytest.raises(UserError, match="form a loop"):
        load_recipe(str(small))
    other.write_text("extends: {a: b}\n")
    with pytest.raises(UserError, match="give a file or a shipped name"):
        load_recipe(str(small))
    other.write_text("extends: [quickstart,\n  nothing.yaml]\n")
    with pytest.raises(UserError, match=r"nothing.yaml does not exist") as caught:
        load_recipe(str(small))
    assert caught.value.where == f"{other}:2"
    other.write_text("extends: quickstrat\n")
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        load_recipe(str(small))


def test_a_parent_is_looked_for_beside_its_child_only(small: Path) -> None:
    child = small.parent / "sub" / "child.yaml"
    child.parent.mkdir()
    child.write_text("extends: small.yaml\n")  # it lies in the working directory, not beside
    with pytest.raises(UserError, match="does not exist"):
        load_recipe(str(child))


def test_paths_start_from_the_file_that_holds_them(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small.parent
    small.write_text(small.read_text() + "shards: {path: shards}\n")
    child = folder / "sub" / "child.yaml"
    child.parent.mkdir()
    source = "sources: {a: {reader: jsonl, path: raw}, b: {reader: jsonl, path: /abs}}"
    child.write_text(f"extends: ../small.yaml\ncorpus: {{path: documents, {source}}}\n")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe(str(child), ["corpus.sources.a.path=given"]).recipe
    assert recipe.shards is not None and recipe.corpus is not None
    assert recipe.shards.path.resolve() == folder / "shards"
    assert recipe.corpus.path == folder / "sub" / "documents"
    assert recipe.corpus.sources["a"].path == elsewhere / "given"
    assert recipe.corpus.sources["b"].path == Path("/abs")


def test_shipped_paths_start_from_the_working_directory(small: Path) -> None:
    recipe = load_recipe("quickstart").recipe
    assert recipe.shards is not None
    assert recipe.shards.path.is_relative_to(small.parent)


def test_finding_recipes(small: Path) -> None:
    assert find_recipe("btlm/paper").name == "paper.yaml"
    assert find_recipe("cerebras-gpt/paper").parent.name == "cerebras_gpt"
    assert find_recipe("data/ontology").is_file() and "quickstart" in shipped_names()
    assert "btlm/method" not in shipped_names()
    with pytest.raises(UserError, match="did you mean 'btlm/paper'"):
        find_recipe("btml/paper")
    for name in (str(small.parent), "cerebras_gpt/paper", "crystal/claims"):
        with pytest.raises(UserError, match="neither a file nor"):
            find_recipe(name)
    (small.parent / "recipe.yaml").write_text(small.read_text())
    assert load_recipe(str(small.parent)).recipe.name == "small"


@pytest.mark.parametrize("text", ["", "# nothing\n", "- 1\n", "text\n", "5\n"])
def test_a_file_without_sections(small: Path, text: str) -> None:
    small.write_text(text)
    with pytest.raises(UserError, match="must be a mapping of sections"):
        load_recipe(str(small))


def test_vocabulary_comes_from_the_tokenizer(small: Path) -> None:
    small.write_text(small.read_text().replace("  vocab_size: 256\n", ""))
    tokenizer = "tokenizer={type: train_bpe, vocab_size: 300}"
    assert load_recipe(str(small), [tokenizer]).recipe.model.vocab_size == 300
    assert load_recipe(str(small)).recipe.model.vocab_size is None
    assert (
        load_recipe(str(small), [tokenizer, "model.vocab_size=320"]).recipe.model.vocab_size == 320
    )
    with pytest.raises(UserError, match="299 rows are fewer than the tokenizer's 300") as caught:
        load_recipe(str(small), [tokenizer, "model.vocab_size=299"])
    assert caught.value.where == "command line"


def test_the_digest_follows_the_values(with_choices: Path) -> None:
    def digest(*overrides: str) -> str:
        return load_recipe(str(with_choices), list(overrides)).digest

    assert digest() == digest("model.d_model=64") == digest("description=words")
    assert digest() != digest("seed=1")
    assert digest("choose.size=huge") == digest("model.d_model=256")


RICH = [
    "corpus={path: d, sources: {a: {reader: jsonl, path: x, tokens: 7}}, deduplicate: null}",
    "phases.0.learning_rate=[{from: 1e-5, to: 1e-3, over: 1 steps}, {to: 0.1, over: rest}]",
    "phases.0.mixture={a: {epochs: 0.5, probability: 1}}",
    "optimizer.clip_norm=none",
    "model.positions={type: rotary, fraction: 0.5}",
    "checkpoints.keep={last: 1, every: 2e9 tokens}",
    "description='a: b # c\n\n  d'",
]


@pytest.mark.parametrize("name", [*shipped_names(), "small.yaml"])
def test_a_resolved_recipe_loads_to_an_equal_one(
    name: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_any_recipe(name, RICH if name == "small.yaml" else [])
    resolved = small.parent / "elsewhere" / "resolved.yaml"
    resolved.parent.mkdir()
    resolved.write_text(recipe_text(loaded))
    monkeypatch.chdir(resolved.parent)
    again = load_any_recipe(str(resolved))
    excluded = {"choices", "choose"}
    assert again.recipe.model_dump(exclude=excluded) == loaded.recipe.model_dump(exclude=excluded)
    assert again.digest == loaded.digest


def test_a_preset_of_deduplication_is_a_key(small: Path) -> None:
    corpus = "corpus={path: d, sources: {a: {reader: jsonl, path: x}}, deduplicate: slimpajama}"
    with pytest.raises(UserError) as caught:
        load_recipe(str(small), [corpus])
    said = "corpus.deduplicate: give the preset as a key: {preset: slimpajama}"
    assert caught.value.what == said


def test_a_null_that_is_not_the_default_is_written(small: Path) -> None:
    text = recipe_text(load_recipe(str(small), RICH))
    (line,) = [line for line in text.splitlines() if "deduplicate:" in line]
    assert line.split("#")[0].strip() == "deduplicate:"  # YAML's empty value is null


def test_a_resolved_recipe_shows_origins(small: Path) -> None:
    lines = recipe_text(load_recipe(str(small), ["model.d_ff=256"])).splitlines()
    by_key = {line.split(":")[0].strip(): line for line in lines}
    assert by_key["d_model"].endswith(f"# {small}:5")
    assert by_key["d_ff"].endswith("# command line")
    assert "#" not in by_key["betas"]


@settings(max_examples=30)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_any_description_survives(small: Path, text: str) -> None:
    loaded = load_recipe(str(small))
    described = loaded.recipe.model_copy(update={"description": text})
    resolved = small.parent / "resolved.yaml"
    written = recipe_text(type(loaded)(described, loaded.tree, loaded.origins))
    resolved.write_text(written, encoding="utf-8", newline="")
    assert load_recipe(str(resolved)).recipe.description == text


KEYS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(tuple)


@given(st.lists(st.tuples(KEYS, st.integers()), max_size=6))
def test_setting_values_one_by_one(pairs: list[tuple[tuple[str, ...], int]]) -> None:
    tree: dict[str, object] = {}
    for key, value in pairs:
        before = repr(tree)
        changed = set_value(tree, key, value)
        assert repr(tree) == before, "the given tree is left alone"
        tree = changed
        found: object = tree
        for part in key:
            assert isinstance(found, dict)
            found = found[part]
        assert found == value


def test_tree() -> None:
    assert split_key("a.0.b") == ("a", 0, "b")
    assert merge({"a": {"b": 1, "c": 2}, "d": [1, 2]}, {"a": {"b": 3}, "d": [4]}) == {
        "a": {"b": 3, "c": 2},
        "d": [4],
    }
    assert origin_of({}, ("a",)) == "default"
