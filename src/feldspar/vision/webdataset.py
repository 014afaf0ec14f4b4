"""Images in WebDataset shards: tar files that hold KEY.jpg beside the number of its class.

The package ``webdataset`` streams shards from the first byte to the last and shuffles in a buffer,
so that it cannot go to a position of a run. Here the headers of all members are read once, and each
image is then read where it lies.
"""

import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.core.files import digest_of
from feldspar.core.progress import progress
from feldspar.vision.decode import decode_image
from feldspar.vision.folder import SUFFIXES
from feldspar.vision.images import LabelledImages

IMAGE_FIELDS = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class ShardMember:
    """The place of one image."""

    shard: Path
    name: str
    offset: int
    """The first byte of the image within the shard."""
    size_bytes: int


def open_webdataset(pattern: Path, channels: int, split: str) -> LabelledImages:
    """Open the shards that ``pattern`` names, in its order, and each shard's images in theirs.

    Raises UserError for shards that are absent, damaged, compressed or without images, for an image
    without the number of its class, and for a class without images.
    """
    members: list[ShardMember] = []
    labels: list[int] = []
    shards = expand_ranges(pattern)
    with progress(f"index images.{split}", len(shards), "shards") as advance:
        for shard in shards:
            if not shard.is_file():
                raise UserError(
                    f"images.{split}: there is no shard {shard.name}",
                    where=str(shard.parent),
                    do="name tar files, such as shards/train-{000..009}.tar",
                )
            for member, label in _images_of(shard):
                members.append(member)
                labels.append(label)
            advance(1)
    absent = min(set(range(max(labels) + 1)) - set(labels), default=None)
    if absent is not None:
        raise UserError(
            f"images.{split}: the class {absent} has no image, though larger labels occur",
            where=str(pattern),
        )
    names = (
        f"{member.shard.name}/{member.name}:{member.size_bytes}:{label}"
        for member, label in zip(members, labels, strict=True)
    )
    return LabelledImages(
        classes=tuple(map(str, range(max(labels) + 1))),
        labels=np.array(labels, dtype=np.int64),
        read=partial(_read_numbered, members, channels),
        digest=digest_of(*names),
    )


def expand_ranges(pattern: Path) -> list[Path]:
    """Return a path for each number of each range {000..009}, in order; numbers keep zeros."""
    parts = RANGE.split(str(pattern))
    fixed, firsts, lasts = parts[::3], parts[1::3], parts[2::3]
    ranges = [
        [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        for first, last in zip(firsts, lasts, strict=True)
    ]
    return [
        Path("".join(itertools.chain(*zip(fixed, numbers, strict=False), fixed[-1:])))
        for numbers in itertools.product(*ranges)
    ]


def _images_of(shard: Path) -> Iterator[tuple[ShardMember, int]]:
    """Yield the images of a shard with their labels, in the order of their keys' first members."""
    images: dict[str, ShardMember] = {}
    labels: dict[str, dict[str, int]] = {}
    keys: dict[str, None] = {}
    with shard.open("rb") as file:
        for member in _members_of(shard, file):
            folder, _, name = member.name.rpartition("/")
            stem, _, field = name.partition(".")
            key, field = f"{folder}/{stem}".removeprefix("/"), field.lower()
            if field in IMAGE_FIELDS:
                if key in images:
                    raise _damage(shard, f"{key} has two images", member.name)
                images[key] = ShardMember(shard, member.name, member.offset_data, member.size)
            elif field in ("cls", "json"):
                file.seek(member.offset_data)
                label = _label_of(shard, member.name, field, file.read(member.size))
                if label is not None:
                    labels.setdefault(key, {})[field] = label
            keys.setdefault(key)
    if not images:
        raise UserError(f"{shard} holds no image", allowed=sorted(IMAGE_FIELDS))
    for key in keys:
        if key not in images:
            continue
        found = labels.get(key)
        if not found:
            raise UserError(
                f"{shard}: the image {images[key].name} has no class",
                do=f"add {key}.cls with the number of its class, or {key}.json with a label",
            )
        yield images[key], found.get("cls", found.get("json", 0))


def _members_of(shard: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the files of an archive. Raises UserError where it does not go on to a proper end."""
    last = "its beginning"
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                last = member.name
                if member.isreg():
                    yield member
            # tarfile takes a header that it cannot read, and the end of the file, for the end.
            file.seek(archive.offset)
            end = file.read(tarfile.BLOCKSIZE)
    except tarfile.TarError as error:
        file.seek(0)
        if file.read(2) == b"\x1f\x8b":
            raise UserError(
                f"{shard} is compressed, so that no image can be read alone",
                do=f"unpack it: gunzip {shard}",
            ) from error
        raise _damage(shard, str(error), last) from error
    if end != tarfile.NUL * tarfile.BLOCKSIZE:
        what = "the next header is damaged" if end else "the end of the archive is missing"
        raise _damage(shard, what, last)


def _damage(shard: Path, what: str, last: str) -> UserError:
    return UserError(
        f"{shard} is damaged after {last}", found=what, do="copy or write the shard again"
    )


def _label_of(shard: Path, name: str, field: str, data: bytes) -> int | None:
    """Return the number of a class from a member's content, None for a JSON object without one."""
    try:
        text = data.decode()
        if field == "json":
            values = json.loads(text)
            if isinstance(values, dict) and "label" not in values:
                return None
            label = values["label"]
        else:
            label = int(text)
        if type(label) is int and label >= 0:
            return label
    except (ValueError, TypeError):
        pass
    raise UserError(
        f"{shard}: {name} does not hold the number of a class",
        found=data[:40].decode(errors="replace"),
        allowed="0, 1, 2, ..." if field == "cls" else '{"label": 0}',
    )


def _read_numbered(members: list[ShardMember], channels: int, index: int) -> Tensor:
    member = members[index]
    with member.shard.open("rb") as file:
        file.seek(member.offset)
        data = file.read(member.size_bytes)
    return decode_image(io.BytesIO(data), f"{member.name} in {member.shard}", channels)
