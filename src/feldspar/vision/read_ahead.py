"""Examples of images read ahead by threads; they depend on positions alone."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from feldspar.core.errors import InternalError
from feldspar.core.streams import numpy_stream

ExampleT = TypeVar("ExampleT")


class EpochOrder:
    """The image of each position: position p is image p mod n of epoch p div n, in an order of that
    epoch's own."""

    def __init__(self, n_images: int, seed: int) -> None:
        self._n_images = n_images
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._draw)

    def image_at(self, position: int) -> int:
        """Return the number of the image at a position of the run."""
        epoch, place = divmod(position, self._n_images)
        return int(self._order(epoch)[place])

    def _draw(self, epoch: int) -> np.ndarray:
        return numpy_stream(self._seed, "images.order", epoch).permutation(self._n_images)


class ReadAhead(Generic[ExampleT]):
    """Examples in the order in which they are requested.

    ``read`` maps a position and a resolution to an example; a thread reads ``at_once`` of them in
    one turn. An error while reading is raised by the ``take`` of its own request.
    """

    def __init__(
        self, read: Callable[[int, int], ExampleT], workers: int, at_once: int = 1
    ) -> None:
        self._read = read
        self._at_once = at_once
        self._pool = ThreadPoolExecutor(workers, "feldspar-images")
        self._answers: deque[list[Future[list[ExampleT]]]] = deque()

    @property
    def waiting(self) -> int:
        """The number of requests that are not taken yet."""
        return len(self._answers)

    def request(self, positions: Sequence[int], resolution: int) -> None:
        """Ask for the examples at ``positions``, and return at once."""
        turns = [
            positions[first : first + self._at_once]
            for first in range(0, len(positions), self._at_once)
        ]
        self._answers.append(
            [self._pool.submit(self._read_turn, turn, resolution) for turn in turns]
        )

    def take(self) -> list[ExampleT]:
        """Wait for the oldest request and return its examples."""
        if not self._answers:
            raise InternalError("images were taken without a request")
        return [example for turn in self._answers.popleft() for example in turn.result()]

    def close(self) -> None:
        """Stop the threads and forget all requests."""
        self._answers.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def in_batches(
        self, numbers: Sequence[int], batch_images: int, resolution: int
    ) -> Iterator[tuple[Sequence[int], list[ExampleT]]]:
        """Yield ``numbers`` in batches with their examples, one batch read ahead; close at the
        end."""
        parts = [
            numbers[start : start + batch_images] for start in range(0, len(numbers), batch_images)
        ]
        try:
            for part in parts[:1]:
                self.request(part, resolution)
            for place, part in enumerate(parts):
                for later in parts[place + 1 : place + 2]:
                    self.request(later, resolution)
                yield part, self.take()
        finally:
            self.close()

    def _read_turn(self, positions: Sequence[int], resolution: int) -> list[ExampleT]:
        return [self._read(position, resolution) for position in positions]
