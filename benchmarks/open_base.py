"""SmolLM2-135M in feldspar against transformers' own reading of the same GGUF file.

The model comes from its pinned package. feldspar imports it; transformers reads the file by itself.
Both score the same text with one thread; then the exported model is compared with the imported one,
and both continue prompts greedily. Run:

    python benchmarks/open_base.py --bytes 1000000
"""

import argparse
import json
import math
import platform
import pydoc_data.topics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import feldspar
from feldspar.core.machine import processor
from feldspar.prepare.bases import BASES, obtained
from feldspar.train.opened_model import Model

RESULTS = Path(__file__).parent / "results" / "open_base.json"
BASE = "smollm2-135m"
DOCUMENT_BYTES = 4000
"""Bytes of a document, at most; each fits one window."""
PROMPTS = ("The capital of France is", "def fibonacci(n):", "In the year 1969,", "Water boils at")
NEW_TOKENS = 24


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=1_000_000)
    parser.add_argument("--text", type=Path, help="a UTF-8 file instead of Python's manual")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = manual() if options.text is None else options.text.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), documents_of(text, options.bytes))
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


@torch.no_grad()
def measure(folder: Path, documents: list[str]) -> dict[str, Any]:
    """Import, export and compare; return the figures."""
    feldspar.import_model(BASE, folder / "imported")
    ours = feldspar.open_model(folder / "imported")
    with obtained(BASES[BASE]) as file:
        theirs = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        ).eval()
    size = sum(len(document.encode()) for document in documents)
    begin = time.perf_counter()
    own = ours.bits_per_byte(documents)
    own_seconds, begin = time.perf_counter() - begin, time.perf_counter()
    ids = [with_ends(ours, document) for document in documents]
    nats = sum(float(nats_of(theirs, each)) for each in ids)
    other, other_seconds = nats / math.log(2) / size, time.perf_counter() - begin
    feldspar.export(folder / "imported", folder / "exported")
    feldspar.import_model(folder / "exported", folder / "again")
    return {
        "bytes": size,
        "tokens": sum(each.shape[1] - 1 for each in ids),
        "bits_per_byte": {"feldspar": own, "transformers": other, "difference": own - other},
        "seconds": {"feldspar": own_seconds, "transformers": other_seconds},
        "export_equal": same_tensors(folder / "imported", folder / "again"),
        "greedy_equal": sum(same_text(ours, theirs, prompt) for prompt in PROMPTS),
        "greedy_prompts": len(PROMPTS),
        "processor": processor(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def manual() -> str:
    """Return Python's manual, as ``help()`` shows it, and the sources of its library."""
    library = sorted(Path(pydoc_data.topics.__file__).parent.parent.glob("*.py"))
    sources = [path.read_text(encoding="utf-8", errors="ignore") for path in library]
    return "\n".join([*pydoc_data.topics.topics.values(), *sources])


def documents_of(text: str, size: int) -> list[str]:
    """Cut the first ``size`` bytes of a text into documents."""
    data = text.encode()[:size]
    parts = [data[place : place + DOCUMENT_BYTES] for place in range(0, len(data), DOCUMENT_BYTES)]
    return [part.decode("utf-8", "ignore") for part in parts]


def with_ends(model: Model, document: str) -> Tensor:
    """Return the ids of a document with its end before and behind it, 1 x length."""
    end = model.tokenizer.end_of_document_id
    return torch.tensor([[end, *model.tokenizer.encode(document), end]])


def nats_of(model: Any, ids: Tensor) -> Tensor:
    """Return transformers' loss, summed over all tokens but the first."""
    return model(ids, labels=ids).loss.double() * (ids.shape[1] - 1)


def same_tensors(one: Path, other: Path) -> bool:
    """Tell whether two imported folders hold the same tensors, bit for bit."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def same_text(ours: Model, theirs: Any, prompt: str) -> bool:
    """Tell whether both continue a prompt by the same tokens."""
    ids = torch.tensor([ours.tokenizer.encode(prompt)])
    found = theirs.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)
    new = found[0, ids.shape[1] :].tolist()
    end = ours.tokenizer.end_of_document_id
    new = new[: new.index(end)] if end in new else new
    return ours.generate(prompt, NEW_TOKENS) == prompt + ours.tokenizer.decode(new)


if __name__ == "__main__":
    main()
