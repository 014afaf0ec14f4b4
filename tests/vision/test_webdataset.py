"""WebDataset shards: the same images as the package reads, in their order, and clear refusals."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from feldspar.core.errors import UserError
from feldspar.recipe.load import load_vision_recipe
from feldspar.vision.data import open_images
from feldspar.vision.loader import TrainingImages
from feldspar.vision.webdataset import expand_ranges, open_webdataset
from tests.vision.pictures import some_pictures, write_folder

Members = list[tuple[str, bytes]]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def write_tar(path: Path, members: Members) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def samples(seed: int, count: int, label: str = "cls") -> Iterator[Members]:
    """The two members of each of some pictures."""
    for number, (pixels, kind) in enumerate(zip(*some_pictures(seed, count), strict=True)):
        text = str(kind) if label == "cls" else json.dumps({"label": int(kind), "width": 20})
        yield [
            (f"kinds/{number:05d}.png", png(pixels)),
            (f"kinds/{number:05d}.{label}", text.encode()),
        ]


def write_shards(root: Path, seed: int, count: int, shards: int = 3, label: str = "cls") -> Path:
    """Write shards of unequal numbers of pictures; return their pattern."""
    parts = np.array_split(np.arange(count), shards)
    members = list(samples(seed, count, label))
    for number, part in enumerate(parts):
        write_tar(root / f"part-{number:03d}.tar", [m for i in part for m in members[i]])
    return root / f"part-{{000..{shards - 1:03d}}}.tar"


@pytest.mark.parametrize("label", ["cls", "json"])
def test_shards_hold_the_images_in_order(tmp_path: Path, label: str) -> None:
    pixels, labels = some_pictures(1, 10)
    images = open_webdataset(write_shards(tmp_path, 1, 10, label=label), 1, "train")
    assert images.classes == ("0", "1", "2")
    assert images.labels.tolist() == labels.tolist()
    for number in (0, 9, 4):
        assert torch.equal(images.read(number), torch.from_numpy(pixels[number])[None])


def test_the_package_reads_the_same_samples(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    written = tmp_path / "written-0.tar"
    with webdataset.TarWriter(str(written)) as shard:
        for number, (pixels, kind) in enumerate(zip(*some_pictures(3, 7), strict=True)):
            shard.write({"__key__": f"a.b/{number}", "png": png(pixels), "cls": str(kind)})
    for pattern in (str(written), str(write_shards(tmp_path / "ours", 4, 9))):
        images = open_webdataset(Path(pattern), 3, "train")
        theirs = webdataset.WebDataset(pattern, shardshuffle=False).decode("rgb8")
        found = list(theirs.to_tuple("png", "cls"))
        assert len(found) == len(images)
        for number, (pixels, label) in enumerate(found):
            assert torch.equal(
                images.read(number).permute(1, 2, 0), torch.from_numpy(pixels.copy())
            )
            assert images.labels[number] == label


def test_a_run_reads_shards_by_position(tmp_path: Path, recipe_file: Path) -> None:
    pattern = write_shards(tmp_path / "train", 1, 96)
    held_out = write_shards(tmp_path / "held-out", 2, 24, shards=1)
    given = ["images.format=webdataset", f"images.train={pattern}", f"images.validation={held_out}"]
    idx = load_vision_recipe(str(recipe_file)).recipe
    ours, files = open_images(load_vision_recipe(str(recipe_file), given).recipe), open_images(idx)
    for position in (0, 95, 200):
        one, other = (
            TrainingImages(data.train, idx.augmentation, seed=4).read(position, 16)
            for data in (ours, files)
        )
        assert torch.equal(one[0], other[0]) and one[1] == other[1]
    assert len(ours.validation) == 24


def test_a_digest_follows_the_shards(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path, 1, 9)
    before = open_webdataset(pattern, 1, "train").digest
    assert open_webdataset(pattern, 3, "train").digest == before
    write_shards(tmp_path, 2, 9)
    write_tar(tmp_path / "part-000.tar", [m for pair in samples(1, 4) for m in pair])
    assert open_webdataset(pattern, 1, "train").digest != before


def test_ranges_are_written_out() -> None:
    assert expand_ranges(Path("a-{08..11}.tar")) == [
        Path(f"a-{n}.tar") for n in ("08", "09", "10", "11")
    ]
    both = [Path(f"{n}/b{m}.tar") for n in (1, 2) for m in (0, 1)]
    assert expand_ranges(Path("{1..2}/b{0..1}.tar")) == both
    assert expand_ranges(Path("one.tar")) == [Path("one.tar")]


def test_damaged_shards_are_named_with_the_last_whole_member(tmp_path: Path) -> None:
    path = tmp_path / "part.tar"
    write_tar(path, [m for pair in samples(1, 4) for m in pair])
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        third = archive.getmember("kinds/00002.png")
    header = bytearray(whole)
    header[third.offset + 10] ^= 1
    cases = {
        "unexpected end of data": whole[: third.offset_data + 30],
        "end of the archive is missing": whole[: third.offset],
        "next header is damaged": bytes(header),
    }
    for found, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"part.tar is damaged after kinds/0000") as caught:
            open_webdataset(path, 1, "train")
        assert found in str(caught.value.found)
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(UserError, match="is compressed"):
        open_webdataset(path, 1, "train")
    for content in (b"", b"no tar file" * 100):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"part.tar is damaged after its beginning"):
            open_webdataset(path, 1, "train")


def test_an_image_that_cannot_be_decoded_is_named_with_its_shard(tmp_path: Path) -> None:
    ((name, content), label), *_ = samples(1, 3)
    rest = [m for pair in list(samples(1, 3))[1:] for m in pair]
    write_tar(tmp_path / "part.tar", [(name, content[:60]), label, *rest])
    images = open_webdataset(tmp_path / "part.tar", 1, "train")
    with pytest.raises(UserError, match=r"00000.png in .*part.tar cannot be read as an image"):
        images.read(0)


IMAGE = ("a.png", b"")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([IMAGE], "the image a.png has no class"),
        ([IMAGE, ("a.json", b'{"width": 3}')], "the image a.png has no class"),
        ([IMAGE, ("a.cls", b"cat")], "a.cls does not hold the number of a class"),
        ([IMAGE, ("a.cls", b"-1")], "a.cls does not hold the number of a class"),
        ([IMAGE, ("a.json", b'{"label": true}')], "a.json does not hold the number of a class"),
        ([IMAGE, ("a.json", b"[1]")], "a.json does not hold the number of a class"),
        ([IMAGE, ("a.jpg", b"")], "damaged after a.jpg"),
        ([("a.txt", b"a caption")], "holds no image"),
        ([IMAGE, ("a.cls", b"1")], "the class 0 has no image"),
    ],
)
def test_samples_that_are_not_images_of_a_class_are_refused(
    tmp_path: Path, members: Members, message: str
) -> None:
    write_tar(tmp_path / "part.tar", members)
    with pytest.raises(UserError, match=message):
        open_webdataset(tmp_path / "part.tar", 1, "train")


def test_a_shard_that_is_absent_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "other", *some_pictures(1, 3))
    with pytest.raises(UserError, match=r"images.train: there is no shard part-000.tar"):
        open_webdataset(tmp_path / "part-{000..001}.tar", 1, "train")
