"""Compressors against their own files."""

import lzma
import random

import pytest
import zstandard

from feldspar.core.errors import UserError
from feldspar.evaluate.baselines.compression import compress_xz, compression_baselines


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


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 70_000, 300_000])
def test_xz_is_as_good_as_its_preset_and_much_faster(size: int) -> None:
    rng = random.Random(size)
    words = [rng.randbytes(rng.randint(1, 9)) for _ in range(300)]
    text = b"".join(rng.choice(words) for _ in range(size // 4 + 1))[:size]
    packed = compress_xz(text)
    assert lzma.decompress(packed) == text
    assert len(packed) == len(lzma.compress(text, preset=9))


def test_random_bytes_need_eight_bits() -> None:
    figures = compression_baselines([random.Random(0).randbytes(50_000)])
    assert all(8 <= value < 8.02 for value in figures.values())


def test_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="no text"):
        compression_baselines([b""])
