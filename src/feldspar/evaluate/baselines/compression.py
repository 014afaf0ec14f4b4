"""Measure general compressors on the same text: ``xz -9`` and ``zstd -19``.

Compare documents that are compressed alone with a model that has no memory of other documents. In
one stream the compressor learns from earlier documents. Sizes are those of whole files as the
commands write them, with headers and checksums.
"""

import lzma
from collections.abc import Callable, Sequence
from typing import Any

from feldspar.core.errors import UserError, missing_extra
from feldspar.core.progress import progress

XZ_PRESET = 9
XZ_DICTIONARY_BYTES = 64 * 2**20
XZ_SMALLEST_DICTIONARY_BYTES = 4096
ZSTD_LEVEL = 19


def compression_baselines(texts: Sequence[bytes]) -> dict[str, float]:
    """Return bits per byte of ``xz_each``, ``xz_stream``, ``zstd_each`` and ``zstd_stream``.

    Raises UserError if there is no text, and SetupError if zstandard is not installed.
    """
    total = sum(map(len, texts))
    if not total:
        raise UserError("there is no text to compress")
    figures = {}
    with progress("compressing", 4 * total, "bytes") as advance:
        for name, compress in (("xz", compress_xz), ("zstd", _zstd())):
            size = 0
            for text in texts:
                size += len(compress(text))
                advance(len(text))
            figures[f"{name}_each"] = 8 * size / total
            figures[f"{name}_stream"] = 8 * len(compress(b"".join(texts))) / total
            advance(total)
    return figures


def compress_xz(text: bytes) -> bytes:
    """Return data of the same length as ``xz -9`` writes.

    A dictionary larger than the text does not help, but clearing 64 MiB takes far longer than
    compressing a short document.
    """
    fitting = 1 << max(0, len(text) - 1).bit_length()
    dictionary = min(max(fitting, XZ_SMALLEST_DICTIONARY_BYTES), XZ_DICTIONARY_BYTES)
    settings = {"id": lzma.FILTER_LZMA2, "preset": XZ_PRESET, "dict_size": dictionary}
    return lzma.compress(text, filters=[settings])


def _zstd() -> Callable[[bytes], bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise missing_extra("zstandard", "data") from error
    compressor: Any = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    return compressor.compress
