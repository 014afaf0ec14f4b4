"""Open a finished folder of shards: memory-mapped, and verified before it is read."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np

from feldspar.core.artifact import Artifact, damaged, open_artifact
from feldspar.core.errors import UserError, nearest
from feldspar.tokens.shards.build_shards import KIND, TOKENIZER_FOLDER, splits_of
from feldspar.tokens.shards.writer import ENDS_SUFFIX, TOKENS_SUFFIX
from feldspar.tokens.tokenizer.document_encoding import SourceCounts

READ_AHEAD_BYTES = 1 << 28
"""Sources with more tokens than this (in bytes) are verified in the background."""


@dataclass(frozen=True)
class SourceTokens:
    """Documents of one split and source, and their places; the arrays have one entry for each
    document."""

    files: Sequence[np.ndarray]
    """Mapped tokens of the shards, u16 or u32; the first access to a file waits for its checksum.
    """
    file_index: np.ndarray
    """File of each document, i32."""
    starts: np.ndarray
    """First token of each document in its file, i64."""
    lengths: np.ndarray
    """Number of tokens of each document, i64, with the end-of-document token."""

    @property
    def tokens(self) -> int:
        """Number of all tokens."""
        return int(self.lengths.sum())

    def document(self, index: int) -> np.ndarray:
        """Return the tokens of one document, by its index, as a view of the file."""
        start = int(self.starts[index])
        return self.files[self.file_index[index]][start : start + int(self.lengths[index])]


class TokenFiles(Sequence[np.ndarray]):
    """Mapped tokens of files; each file is verified before it is used."""

    def __init__(self, folder: Artifact, names: Sequence[str], mapped: Sequence[np.ndarray]):
        self._folder = folder
        self._names = names
        self._mapped = mapped
        self._checked = [False] * len(names)
        if sum(tokens.nbytes for tokens in mapped) > READ_AHEAD_BYTES:
            folder.verify_in_background(names)
        else:
            folder.files(names)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[np.ndarray, ...]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | tuple[np.ndarray, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(len(self))[index])
        if not self._checked[index]:
            self._folder.file(self._names[index])
            self._checked[index] = True
        return self._mapped[index]


class ShardSet:
    """Shards of all splits and sources in one folder; make one with ``ShardSet.open``."""

    def __init__(self, folder: Artifact) -> None:
        path, manifest = folder.path, folder.manifest
        self.path = path
        self.manifest = manifest
        self._folder = folder
        self.digest = manifest.digest
        self.vocab_size: int = manifest.counts["vocab_size"]
        self.end_of_document: str = manifest.counts["end_of_document"]
        self.end_of_document_id: int = manifest.counts["end_of_document_id"]
        self.begin_of_sequence_id: int | None = manifest.counts.get("begin_of_sequence_id")
        """Id of the token that each sequence begins with; None if sequences hold text only."""
        self.tokenizer_digest: str = manifest.counts["tokenizer_digest"]
        self.tokenizer = path / TOKENIZER_FOLDER
        self.dtype = np.dtype(manifest.counts["dtype"])
        self._splits = splits_of(manifest)
        self._read = lru_cache(maxsize=None)(self._read_source)

    @classmethod
    def open(cls, path: Path) -> "ShardSet":
        """Open a folder that ``tokens build`` wrote.

        The tokenizer is verified at once, tokens when they are read. Raises UserError if the folder
        does not exist or has a file that is not its own, and RunError for a damaged file.
        """
        if not path.is_dir():
            raise UserError(
                f"shards.path: {path} does not exist",
                do="build the shards first: feldspar tokens build RECIPE",
            )
        folder = open_artifact(path, KIND)
        folder.files(folder.names(TOKENIZER_FOLDER))
        return cls(folder)

    def verify(self) -> None:
        """Verify all files. Raises RunError for a damaged file."""
        self._folder.verify()

    @property
    def splits(self) -> list[str]:
        """Splits that have at least one source."""
        return list(self._splits)

    def sources(self, split: str = "train") -> list[str]:
        """Return the sources of a split that have documents, in alphabetical order."""
        known = self._splits.get(split, {})
        return [name for name, counts in known.items() if counts.documents]

    def tokens(self, split: str, source: str) -> int:
        """Return the number of tokens, with end-of-document tokens. Raises UserError for unknown
        names."""
        return self.counts(split, source).tokens

    def documents(self, split: str, source: str) -> int:
        """Return the number of documents. Raises UserError for unknown names."""
        return self.counts(split, source).documents

    def text_bytes(self, split: str, source: str) -> int:
        """Return the UTF-8 bytes of the text, for bits per byte. Raises UserError for unknown
        names."""
        return self.counts(split, source).text_bytes

    def counts(self, split: str, source: str) -> SourceCounts:
        """Return every count of one split and source. Raises UserError for unknown names."""
        known = self._splits.get(split, {})
        if source not in known:
            hint = nearest(source, known)
            raise UserError(
                f"{self.path} has no source {source!r} in its {split} split"
                + (f"; did you mean {hint!r}?" if hint else ""),
                allowed=known or self._splits,
            )
        return known[source]

    def read(self, split: str, source: str) -> SourceTokens:
        """Return the verified tokens of one source.

        Raises UserError for unknown names, and RunError for a damaged file.
        """
        self.counts(split, source)
        return self._read(split, source)

    def _read_source(self, split: str, source: str) -> SourceTokens:
        files, indices, starts, lengths = [], [], [], []
        names = self._folder.names(f"{split}/{source}", TOKENS_SUFFIX)
        for index, name in enumerate(names):
            tokens, ends = self._read_file(name)
            length = np.diff(ends, prepend=0)
            files.append(tokens)
            starts.append(ends - length)
            lengths.append(length)
            indices.append(np.full(len(ends), index, np.int32))
        if not files:
            return SourceTokens((), np.empty(0, np.int32), *2 * (np.empty(0, np.int64),))
        mapped = TokenFiles(self._folder, names, files)
        return SourceTokens(
            mapped, np.concatenate(indices), np.concatenate(starts), np.concatenate(lengths)
        )

    def _read_file(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        path = self.path / name
        bytes_found, itemsize = path.stat().st_size, self.dtype.itemsize
        if bytes_found == 0 or bytes_found % itemsize:
            raise damaged(
                path, f"{bytes_found} bytes are not a whole number of {self.dtype} tokens", KIND
            )
        tokens = _mapped(path, self.dtype)
        sidecar = self._folder.file(name.removesuffix(TOKENS_SUFFIX) + ENDS_SUFFIX)
        try:
            ends = np.load(sidecar, allow_pickle=False).astype(np.int64)
        except (OSError, ValueError) as error:
            raise damaged(sidecar, str(error), KIND) from error
        if not len(ends) or ends[-1] != len(tokens):
            last = int(ends[-1]) if len(ends) else 0
            raise damaged(path, f"{len(tokens)} tokens, but the last document ends at {last}", KIND)
        if ends[0] <= 0 or np.any(np.diff(ends) <= 0):
            raise damaged(sidecar, "the documents' ends do not increase", KIND)
        return tokens, ends


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    """Return the tokens of a file, mapped read-only."""
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Documents are read in random order, so reading ahead would load much that is not used.
    if hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapping, dtype)
