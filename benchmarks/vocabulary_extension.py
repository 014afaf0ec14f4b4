"""Learning 32,000 pieces for a base tokenizer, beside training as many from nothing.

The text is this Python's library and packages with its letters turned into Arabic ones; the base is
a byte-level BPE of the same text in English. The peer is the trainer of ``tokenizers`` (Rust): it
knows no base, and learns the same number of merges from the same pre-tokens. One thread; processor
seconds. Run:

    python benchmarks/vocabulary_extension.py
"""

import argparse
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feldspar.core.machine import processor
from feldspar.tokens.tokenizer.appended_bpe import append_pieces, trained_pieces
from feldspar.tokens.tokenizer.bpe import train_bpe
from feldspar.tokens.tokenizer.continued_bpe import continue_merges
from feldspar.tokens.tokenizer.contract import check_contract
from feldspar.tokens.tokenizer.extension import Extension
from feldspar.tokens.tokenizer.growth import Growth, Vocabulary
from feldspar.tokens.tokenizer.scripts import TargetCharacters
from feldspar.tokens.tokenizer.spelling import spelling_of
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.words import Words
from tokenization import library_texts

RESULTS = Path(__file__).parent / "results" / "vocabulary_extension.json"
CIPHER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ابتثجحخدذرزسشصضطظعغفقكلمنه")
END = "<|endoftext|>"


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100.0, help="of target text in UTF-8")
    parser.add_argument("--new-tokens", type=int, default=32_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    result = measure(options.megabytes, options.new_tokens)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def measure(megabytes: float, new_tokens: int) -> dict[str, Any]:
    """Each stage once, and the peer."""
    english = library_texts(int(megabytes * 1e6 / 1.5))
    texts = [text.lower().translate(CIPHER) for text in english]
    base = train_bpe(english[::40], 8192, (END,))
    target = TargetCharacters.of_scripts(("arabic",))
    spelling, vocabulary = spelling_of(base, target), Vocabulary(base)
    seconds: dict[str, float] = {}
    counts = timed(seconds, "count words", lambda: Words(base).count(texts))
    words = Counter({word: n for word, n in counts.items() if spelling.has_target(word)})
    grown = {
        "continued": lambda: continue_merges(vocabulary, spelling, words, new_tokens),
        "append": lambda: append_pieces(
            vocabulary, spelling, trained_pieces(spelling, words), new_tokens
        ),
    }
    probes = [*texts[:200], *english[:200]]
    tokens = {"base": tokens_of(base, texts[:200])}
    for method, work in grown.items():
        growth: Growth = timed(seconds, method, work)
        record = Extension(base.digest, base.vocab_size, len(growth.pieces), method, "arabic")
        extended = vocabulary.grown(growth, record)
        timed(
            seconds,
            f"{method}: contract",
            lambda held=extended: check_contract(base, held, target, probes),
        )
        tokens[method] = tokens_of(extended, texts[:200])
    timed(seconds, "tokenizers, from nothing", lambda: train_bpe(texts, new_tokens + 257, (END,)))
    return {
        "machine": {
            "processor": processor(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "text_bytes": sum(len(text.encode()) for text in texts),
        "different_words": len(words),
        "new_tokens": new_tokens,
        "processor_seconds": seconds,
        "tokens_of_200_files": tokens,
    }


def timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """The result of ``work``; its processor time goes into ``seconds``."""
    start = time.process_time()
    result = work()
    seconds[name] = round(time.process_time() - start, 2)
    print(f"{name}: {seconds[name]} s", flush=True)
    return result


def tokens_of(tokenizer: TextTokenizer, texts: list[str]) -> int:
    """Tokens of all texts."""
    return sum(map(len, tokenizer.encode_documents(texts)))


if __name__ == "__main__":
    main()
