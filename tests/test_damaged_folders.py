"""Every file of every kind of folder, flipped, cut, grown, deleted, and one too many.

Whoever reads the folder refuses it with exit code 2 or 4 and names the file; nothing is read on in
silence.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from feldspar.core.errors import FeldsparError
from feldspar.core.manifest import Manifest, records_of, write_manifest
from feldspar.corpus.files import deduplicate_files
from feldspar.evaluate.exported import open_exported
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.corpus import DeduplicateSettings
from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
from feldspar.release.release_run import release_run
from feldspar.release.unpack import unpack_release
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.train.run import train
from tests.tokens.conftest import some_texts, write_documents
from tests.train.conftest import RECIPE

SHORT = ["phases.0.length=2 steps", "phases.1.length=1 steps", "evaluation.every=100% of run"]
CHECKPOINT = "000000000000384"
KINDS = ("documents", "tokenizer", "shards", "release", "deduplication", "checkpoint")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of each kind in one place, all tiny."""
    root = tmp_path_factory.mktemp("world")
    texts = {"prose": some_texts(1, 40), "code": some_texts(2, 20)}
    splits = {"train": texts, "validation": {"prose": some_texts(3, 6)}, "test": texts}
    write_documents(root / "documents", splits)
    read_documents(root / "documents", root / "shards")
    shutil.copytree(root / "shards" / "tokenizer", root / "tokenizer")
    manifest = Manifest("tokenizer", "", "1", files=records_of(root / "tokenizer"))
    write_manifest(root / "tokenizer", manifest)
    (root / "tiny.yaml").write_text(RECIPE.format(shards="shards"))
    train(load_recipe(str(root / "tiny.yaml"), SHORT), root / "run")
    release_run(root / "run", root / "release", False)
    shutil.copytree(sorted((root / "run" / "checkpoints").iterdir())[-1], root / "checkpoint")
    rows = (f'{{"source": "a", "text": "{letter * 300}"}}\n' for letter in "xyyz")
    (root / "rows.jsonl").write_text("".join(rows))
    read_deduplication(root / "deduplication", root)
    return root


def read_documents(folder: Path, out: Path) -> None:
    settings = ShardSettings(path=out)
    build_shards(folder, TrainBpe(vocab_size=300), settings, seed=0, workers=1)


def read_tokenizer(folder: Path, _: Path) -> None:
    TextTokenizer.load(folder)


def read_shards(folder: Path, _: Path) -> None:
    shards = ShardSet.open(folder)
    for split in shards.splits:
        for source in shards.sources(split):
            read = shards.read(split, source)
            for index in range(len(read.lengths)):
                read.document(index)


def read_release(folder: Path, _: Path) -> None:
    """The model, and each checkpoint where there is a manifest to compare it with."""
    open_exported(folder)
    if (folder / "manifest.json").is_file():
        for checkpoint in sorted((folder / "checkpoints").iterdir()):
            with TemporaryDirectory() as work:
                unpack_release(folder, Path(work) / "run", checkpoint.name)


def read_checkpoint(folder: Path, _: Path) -> None:
    """The only one of a run."""
    folder.rename(folder.with_name(CHECKPOINT))
    store = CheckpointStore(folder.parent)
    try:
        found = store.newest_valid()
        assert found is not None and found.read_model() and found.state
    finally:
        folder.with_name(CHECKPOINT).rename(folder)


def read_deduplication(folder: Path, _: Path) -> None:
    """The same command again finds it finished."""
    deduplicate_files([folder.parent / "rows.jsonl"], folder, DeduplicateSettings())


READERS: dict[str, Callable[[Path, Path], None]] = {
    "documents": read_documents,
    "tokenizer": read_tokenizer,
    "shards": read_shards,
    "release": read_release,
    "deduplication": read_deduplication,
    "checkpoint": read_checkpoint,
}


def at(place: Callable[[int], int]) -> Callable[[Path], None]:
    """Flip one bit of the byte there."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[place(len(data)) % len(data)] ^= 4
        path.write_bytes(data)

    return flip


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "middle": at(lambda size: size // 2),
    "first": at(lambda size: 0),
    "second": at(lambda size: 1),
    "quarter": at(lambda size: size // 4),
    "three quarters": at(lambda size: 3 * size // 4),
    "last but one": at(lambda size: size - 2),
    "last": at(lambda size: size - 1),
    "cut": cut,
    "grow": grow,
    "delete": Path.unlink,
    "empty": empty,
}


FAST = {"middle", "cut", "delete"}


def is_harmless(name: str, damage: str, kind: str) -> bool:
    """Tell whether a damage changes nothing: white space at the end of a manifest.

    A model's folder without any manifest is one of a model hub, which is said.
    """
    if name != "manifest.json":
        return False
    return damage in ("cut", "grow") or (damage == "delete" and kind in ("release", "tokenizer"))


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Make a fresh copy of a kind's folder."""
    shutil.copy(world / "rows.jsonl", tmp_path / "rows.jsonl")

    def make(kind: str) -> Path:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        return shutil.copytree(world / kind, tmp_path / "copy")

    return make


@pytest.mark.parametrize(
    "damage",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in DAMAGES],
)
@pytest.mark.parametrize("kind", KINDS)
def test_each_file_is_compared_before_it_is_read(
    kind: str, damage: str, world: Path, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = world / kind
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    assert len(names) >= 3
    for name in names:
        folder = copy(kind)
        DAMAGES[damage](folder / name)
        if is_harmless(str(name), damage, kind):
            READERS[kind](folder, tmp_path / "out")
            continue
        with pytest.raises(FeldsparError) as caught:
            READERS[kind](folder, tmp_path / "out")
        assert caught.value.exit_code in (2, 4), (name, caught.value)
        assert name.name in str(caught.value)
        assert caught.value.do or "holds no manifest.json" in caught.value.what
        assert not (tmp_path / "out").exists(), "nothing was made of it"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_too_many_is_refused(kind: str, copy: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy(kind)
    for first in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
        extra = first.with_name(f"0-{first.name}")
        shutil.copy(first, extra)
        with pytest.raises(FeldsparError, match=r"not\s+listed in manifest") as caught:
            READERS[kind](folder, tmp_path / "out")
        assert caught.value.exit_code in (2, 4) and extra.name in str(caught.value)
        extra.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_copy_is_read(kind: str, copy: Callable[[str], Path], tmp_path: Path) -> None:
    READERS[kind](copy(kind), tmp_path / "out")
