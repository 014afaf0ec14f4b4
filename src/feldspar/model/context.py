"""What every layer of one forward pass shares: rotary tables, slopes, documents, the cache."""

from dataclasses import dataclass

from torch import Tensor

from feldspar.model.cache import KeyValueCache


@dataclass(frozen=True)
class SequenceContext:
    """Computed once a pass by the decoder.

    ``rotary`` holds cosine and sine (..., t, 1, p); ``slopes`` is (h,) in float32, or (h, t) or
    (b, h, t) where each query has its own; ``document_ids`` is (b, t) and keeps attention inside a
    document.
    """

    rotary: tuple[Tensor, Tensor] | None = None
    slopes: Tensor | None = None
    document_ids: Tensor | None = None
    cache: KeyValueCache | None = None
