"""The model card, written from records: nothing in it is typed by hand."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ReleaseFacts:
    """What a release says of itself, all of it read from the run and its data.

    ``licences`` maps each source to the licence that its documents carry; ``held_out`` maps each
    source to bits per byte; ``documents`` are counts of documents kept by source.
    """

    name: str
    description: str
    architecture: str
    parameters: int
    context_length: int
    tokens: int
    parametrization: str
    licences: dict[str, str] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)


def model_card(facts: ReleaseFacts) -> str:
    """The card as Markdown with the header that model hubs read."""
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [feldspar]",
        "---",
        f"# {facts.name}",
        "",
        facts.description,
        "",
        "| | |",
        "|---|---|",
        f"| class | `{facts.architecture}` |",
        f"| parameters | {facts.parameters:,} |",
        f"| context | {facts.context_length:,} tokens |",
        f"| trained on | {facts.tokens:,} tokens |",
        f"| trained as | {facts.parametrization}, exported in standard parametrization |",
        "",
        "## Use",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("PATH")',
        'tokenizer = AutoTokenizer.from_pretrained("PATH")',
        "```",
    ]
    if facts.documents:
        lines += ["", "## Data", "| source | documents | licence |", "|---|---|---|"]
        lines += [
            f"| {name} | {count:,} | {facts.licences.get(name, 'unknown')} |"
            for name, count in facts.documents.items()
        ]
    if facts.held_out:
        lines += ["", "## Held-out bits per byte", "| source | bits per byte |", "|---|---|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in facts.held_out.items()]
    lines += [
        "",
        "## Limits",
        (
            "A base model without instruction tuning or safety training. It repeats what its data "
            "holds, errors and bias included."
        ),
        "",
        "## Provenance",
        *(f"* {name}: `{digest}`" for name, digest in facts.manifests.items()),
        "",
        "`feldspar release --verify PATH` compares every file with `manifest.json`.",
        "",
    ]
    return "\n".join(lines)


def licence_text(licences: dict[str, Any]) -> str:
    """The licences of a source's documents as one text, most frequent first."""
    known = sorted(licences.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(name for name, _ in known) or "unknown"
