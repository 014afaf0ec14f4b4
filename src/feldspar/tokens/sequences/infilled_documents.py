"""Transform the documents of a source by fill-in-the-middle, and measure their lengths.

Each epoch draws anew, so a document has other tokens in each epoch. The lengths of an epoch are
needed before its first window is read, because the place of a window depends on all documents
before it. All documents are therefore transformed once to be measured. The lengths (4 bytes for
each document) are kept in the user's cache: the other processes of a run, and a resumed run, read
them there.
"""

import fcntl
import io
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from feldspar.core.errors import FeldsparError
from feldspar.core.execution import available_cores, executor
from feldspar.core.files import cache_folder, digest_of, write_atomically
from feldspar.core.progress import progress
from feldspar.core.streams import hash_integers, stream_seed
from feldspar.recipe.sections.phase_data import FillInTheMiddle, Select
from feldspar.tokens.sequences.selected_documents import select_documents
from feldspar.tokens.shards.shard_folder import ShardSet, SourceTokens
from feldspar.tokens.tokenizer.infilling import DRAWS, Infiller
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

SERIAL_TOKENS = 2**24
"""Up to so many tokens, one process measures an epoch: starting others would take longer."""
UNIT_TOKENS = 2**20
FORMAT = "infilled lengths 1"


@dataclass(frozen=True)
class InfilledSource:
    """A source of one split of shards, or a part of it, and its transformation in a run."""

    split: str
    source: str
    select: Select | None
    how: FillInTheMiddle
    seed: int
    """Seed of the run."""

    @property
    def part(self) -> str:
        """Name of the part for errors and random streams; it does not name the transformation."""
        return self.source if self.select is None else self.select.label(self.source)


class InfilledDocuments:
    """Documents of one source of ``shards``, transformed for any epoch."""

    def __init__(self, of: InfilledSource, shards: ShardSet) -> None:
        self.of = of
        self.source: SourceTokens = select_documents(
            shards.read(of.split, of.source), of.select, of.source
        )
        self._shards = shards
        self._infiller = Infiller(TextTokenizer.load(shards.tokenizer, shards.end_of_document))

    def document(self, epoch: int, index: int) -> np.ndarray:
        """Return the tokens of one document in an epoch, with its end, as u16 or u32."""
        key = stream_seed(self.of.seed, "data.infilled_documents", self.of.part, epoch)
        draws = hash_integers(index * DRAWS + np.arange(DRAWS), key).tolist()
        found = self._infiller.document(self.source.document(index), self.of.how, draws)
        return found.astype(self._shards.dtype)

    def lengths(self, epoch: int) -> np.ndarray:
        """Return the number of tokens of each document in an epoch, u32: kept or measured."""
        of, documents = self.of, len(self.source.lengths)
        key = digest_of(
            *(FORMAT, self._shards.digest, of.split, of.part, str(of.seed), str(epoch)),
            *(repr(of.how.rate), repr(of.how.spm)),
        )
        path = cache_folder() / "infilled" / f"{key}.npy"
        with _only_one_process(path):
            lengths = _kept(path, documents)
            if lengths is None:
                lengths = self._measure_all(epoch)
                _keep(path, lengths)
        return lengths

    def measure(self, epoch: int, first: int, last: int) -> np.ndarray:
        """Transform the documents ``first`` to ``last`` - 1, and return their lengths, u32."""
        return np.array([len(self.document(epoch, n)) for n in range(first, last)], np.uint32)

    def _measure_all(self, epoch: int) -> np.ndarray:
        ends = np.cumsum(self.source.lengths)
        marks = np.searchsorted(ends, np.arange(0, int(ends[-1]), UNIT_TOKENS))
        cuts = [*np.unique(marks).tolist(), len(ends)]
        place = self._shards.path
        units = [(place, self.of, epoch, *cut) for cut in pairwise(cuts)]
        alone = self.source.tokens <= SERIAL_TOKENS
        title = f"lengths of {self.of.part} with fill-in-the-middle, epoch {epoch}"
        found = []
        with (
            executor(1 if alone else available_cores()) as pool,
            progress(title, len(ends)) as advance,
        ):
            for lengths in pool.map(self._measure_here if alone else _measure_there, units):
                found.append(lengths)
                advance(len(lengths))
        return np.concatenate(found)

    def _measure_here(self, unit: tuple[Path, InfilledSource, int, int, int]) -> np.ndarray:
        return self.measure(*unit[2:])


def _measure_there(unit: tuple[Path, InfilledSource, int, int, int]) -> np.ndarray:
    """Measure documents in another process, which opens the shards itself."""
    return _opened(*unit[:2]).measure(*unit[2:])


@lru_cache(maxsize=1)
def _opened(shards: Path, of: InfilledSource) -> InfilledDocuments:
    return InfilledDocuments(of, ShardSet.open(shards))


def _kept(path: Path, documents: int) -> np.ndarray | None:
    """Return the lengths in the cache; None where there are none, or not as many."""
    with suppress(OSError, ValueError, EOFError):
        lengths = np.load(path, allow_pickle=False)
        if lengths.dtype == np.uint32 and lengths.shape == (documents,):
            return lengths
    return None


def _keep(path: Path, lengths: np.ndarray) -> None:
    """Write lengths to the cache. Without a place to write they are measured again next time."""
    content = io.BytesIO()
    np.save(content, lengths)
    with suppress(OSError, FeldsparError):
        write_atomically(path, content.getvalue())


@contextmanager
def _only_one_process(path: Path) -> Generator[None]:
    """Let one process of the machine measure while the others wait for its file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError:  # no cache
        yield
        return
    with lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
