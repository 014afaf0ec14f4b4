"""Training with fill-in-the-middle: masked labels, resuming, what may change."""

import shutil
from pathlib import Path

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.model.cross_entropy import IGNORED_LABEL
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.tokens import END_OF_DOCUMENT, ShardSettings, TrainBpe
from feldspar.tokens.sequences.resolve import MeasuredTokens
from feldspar.tokens.sequences.sequence_loader import SequenceTensors
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.data import open_training_data, plan_loaded
from feldspar.train.next_token import _model_inputs
from feldspar.train.run import train
from tests.tokens.conftest import FIM, some_texts, write_documents
from tests.train.conftest import RECIPE, metrics_of

INFILLED = "{probability: 0.3, fill_in_the_middle: {rate: 0.9, scope: context}}"
OVERRIDES = [
    "phases.0.length=8 steps",
    "phases.1.length=4 steps",
    "checkpoints.every=2 steps",
    "checkpoints.keep.last=9",
    "evaluation.every=100% of run",
]


@pytest.fixture
def infilled_recipe(tmp_path: Path) -> Path:
    """The tiny recipe; its first phase transforms one of the two sources."""
    texts = {"prose": some_texts(1, 60), "code": some_texts(2, 40)}
    documents = write_documents(tmp_path / "documents", {"train": texts, "validation": texts})
    bpe = TrainBpe(vocab_size=300, special_tokens=(END_OF_DOCUMENT, *FIM))
    settings = ShardSettings(path=tmp_path / "shards")
    build_shards(documents, bpe, settings, seed=0, workers=1, infilling_scopes={"context"})
    path = tmp_path / "tiny.yaml"
    text = RECIPE.format(shards=settings.path)
    path.write_text(text.replace("code: 0.3}", f"code: {INFILLED}}}"))
    return path


SCOPE = "phases.0.mixture.code.fill_in_the_middle.scope"


@pytest.mark.parametrize("scope", ["context", "document"])
def test_resumed_at_any_checkpoint_it_trains_the_same(
    infilled_recipe: Path, tmp_path: Path, scope: str
) -> None:
    loaded = load_recipe(str(infilled_recipe), [*OVERRIDES, f"{SCOPE}={scope}"])
    whole = tmp_path / "whole"
    train(loaded, whole)
    keys = ("step", "train/loss", "cut_tokens")
    expected = [tuple(record.get(key) for key in keys) for record in metrics_of(whole)]
    # Sentinels push text out of windows where these are transformed, and nowhere else.
    assert any(cut for *_, cut in expected[:8]) == (scope == "context")
    assert not any(cut for *_, cut in expected[8:])
    names = sorted(folder.name for folder in (whole / "checkpoints").iterdir())
    for last in names[1:-1:2]:
        out = tmp_path / f"from-{last}"
        shutil.copytree(whole, out)
        for later in names[names.index(last) + 1 :]:
            shutil.rmtree(out / "checkpoints" / later)
        train(loaded, out)
        assert [tuple(record.get(key) for key in keys) for record in metrics_of(out)] == expected


def test_the_rate_of_a_phase_that_has_begun_may_not_change(
    infilled_recipe: Path, tmp_path: Path
) -> None:
    train(
        load_recipe(str(infilled_recipe), [*OVERRIDES, "phases.1.length=1 steps"]), tmp_path / "a"
    )
    other = "phases.0.mixture.code.fill_in_the_middle.rate=0.5"
    with pytest.raises(UserError, match=r"the recipe has changed since the run began: .*rate"):
        train(load_recipe(str(infilled_recipe), [*OVERRIDES, other]), tmp_path / "a")


def test_masked_labels_are_ignored_by_the_loss() -> None:
    tokens = torch.arange(12).reshape(2, 6)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    sequences = SequenceTensors(0, 0, 2, tokens[:, :-1], tokens[:, 1:], label_mask=mask)
    inputs, labels = _model_inputs(sequences)
    assert torch.equal(inputs, tokens[:, :-1])
    assert labels.tolist() == [[1, 2, 3, 4, 5], [7, 8, *[IGNORED_LABEL] * 3]]


def test_epochs_count_transformed_tokens(infilled_recipe: Path, tmp_path: Path) -> None:
    both = "{prose: {probability: 0.5}, code: {epochs: 2, fill_in_the_middle: {rate: 1.0}}}"
    changes = [
        f"phases.0.mixture={both}",
        "phases.0.normalize_mixture=true",
        "phases.0.allow_repeat=[prose]",
    ]
    loaded = load_recipe(str(infilled_recipe), [*OVERRIDES, *changes])
    planned = plan_loaded(loaded)
    assert loaded.recipe.shards is not None
    shards = ShardSet.open(loaded.recipe.shards.path)
    data = open_training_data(planned.recipe, planned.timeline, shards)
    label = loaded.recipe.phases[0].infilled_documents["code"].label("code")
    assert isinstance(planned.source_tokens, MeasuredTokens)
    size = planned.source_tokens.parts[label]
    # Three sentinels a document, and tokens that the cuts divided.
    assert size >= shards.tokens("train", "code") + 3 * shards.counts("train", "code").documents
    share = data.mixtures[0].probabilities["code"]
    length = planned.timeline.phases[0].length
    assert data.mixtures[0].epochs["code"] == pytest.approx(float(share * length / size))
