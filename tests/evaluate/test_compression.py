"""Compressors against their own files."""

import lzma
import random

import pytest
import zstandard

from feldspar.core.errors import UserError
from feldspar.evaluate import compression_baselines


def test_bits_per_byte_are_those_of_the_files() -> None:
    texts = [b"the river runs under the old stone house\n" * 5, "naïve café 東京\n".encode() * 9]
    total = sum(map(len, texts))
    figures = compression_baselines(texts)
    assert set(figures) == {"xz_each", "xz_stream", "zstd_each", "zstd_stream"}
    each = sum(len(lzma.compress(text, preset=9)) for text in texts)
    assert figures["xz_each"] == 8 * each / total
    packed = zstandard.ZstdCompressor(level=19).compress(b"".join(texts))
    assert zstandard.ZstdDecompressor().decompress(packed) == b"".join(texts)
    assert figures["zstd_stream"] == 8 * len(packed) / total
    assert figures["xz_stream"] < figures["xz_each"]


def test_random_bytes_need_eight_bits() -> None:
    figures = compression_baselines([random.Random(0).randbytes(100_000)])
    assert all(8 <= value < 8.02 for value in figures.values())


def test_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="no text"):
        compression_baselines([b""])
