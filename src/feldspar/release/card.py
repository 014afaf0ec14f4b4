"""The model card and the manifest that finish a release, and the check of a release by them.

All figures of the card come from records.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feldspar.core.artifact import Wanted, finish_artifact
from feldspar.core.files import write_atomically
from feldspar.core.manifest import read_manifest, verify_files
from feldspar.core.progress import tokens_of_plan

MARKUP = re.compile(r"[\\`*_{}\[\]<>#|!~&$]")
"""Characters that Markdown or HTML may read as markup."""
LINE_START = re.compile(r"^([0-9]*)([-+=:.)])")
"""Characters that begin a list, a rule or a heading at the start of a line."""


@dataclass(frozen=True)
class ReleaseFacts:
    """The facts that a release states, read from the run and its data.

    ``planned_tokens`` is None where the plan is not known. ``licences`` maps each source to the
    licence of its documents, ``held_out`` to its bits per byte, and ``documents`` to the number of
    documents kept.
    """

    name: str
    description: str
    architecture: str
    parameters: int
    context_length: int
    tokens: int
    planned_tokens: int | None
    parametrization: str
    licences: dict[str, str] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)

    @property
    def trained_on(self) -> str:
        """Say how many tokens were read, and whether the run was to read more."""
        if self.planned_tokens is None:
            return f"{self.tokens:,} tokens (how many were planned is not known)"
        if self.tokens < self.planned_tokens:
            done = tokens_of_plan(self.tokens, self.planned_tokens)
            return f"{done}: **the run is unfinished**"
        return f"{self.tokens:,} tokens, as planned"


def model_card(facts: ReleaseFacts) -> str:
    """Write the card as Markdown with the header that model hubs read."""
    from feldspar.huggingface.own import OWN  # loads torch, which a check of a release needs not

    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [feldspar]",
        "---",
        f"# {plain_text(facts.name)}",
        "",
        plain_text(facts.description),
        "",
        "| | |",
        "|---|---|",
        f"| class | `{facts.architecture}` |",
        f"| parameters | {facts.parameters:,} |",
        f"| context | {facts.context_length:,} tokens |",
        f"| trained on | {facts.trained_on} |",
        f"| trained as | {facts.parametrization}, exported in standard parametrization |",
        "",
        *_use(facts.architecture == OWN),
    ]
    if facts.documents:
        lines += ["", "## Data", "| source | documents | licence |", "|---|---|---|"]
        lines += [
            f"| {plain_text(name)} | {count:,} | "
            f"{plain_text(facts.licences.get(name, 'unknown'))} |"
            for name, count in facts.documents.items()
        ]
    if facts.held_out:
        lines += ["", "## Held-out bits per byte", "| source | bits per byte |", "|---|---|"]
        lines += [f"| {plain_text(name)} | {value:.4f} |" for name, value in facts.held_out.items()]
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


def _use(has_own_code: bool) -> list[str]:
    """Show how to load the model and write text with it."""
    trust = ", trust_remote_code=True" if has_own_code else ""
    about = (
        "`transformers` has no class for this model's settings. The file `modeling_feldspar.py` in "
        "this folder defines it, and `trust_remote_code=True` runs that file: read it first. Where "
        "`feldspar` is installed, call `feldspar.register_with_transformers()` instead, and no "
        "code of this folder runs."
    )
    return [
        "## Use",
        *([about, ""] if has_own_code else []),
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("PATH"{trust})',
        f'tokenizer = AutoTokenizer.from_pretrained("PATH"{trust})',
        'tokens = tokenizer("The", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**tokens, max_new_tokens=20)[0]))",
        "```",
    ]


def plain_text(text: str) -> str:
    """Escape ``text`` so that a card shows it literally, on one line, without markup."""
    visible = "".join(map(_visible, text))
    one_line = " ".join(visible.split())
    return LINE_START.sub(r"\1\\\2", MARKUP.sub(r"\\\g<0>", one_line))


def _visible(character: str) -> str:
    """Replace a control by a space; drop characters without a glyph, such as direction marks."""
    kind = unicodedata.category(character)
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    return "" if kind in ("Cf", "Cs") else character


def licence_text(licences: dict[str, Any]) -> str:
    """Return the licences of a source's documents as one text, most frequent first."""
    known = sorted(licences.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(name for name, _ in known) or "unknown"


KIND = "release"
CARD_NAME = "README.md"


def finish_release(folder: Path, facts: ReleaseFacts, command: str) -> None:
    """Write the card and the manifest of an exported folder."""
    write_atomically(folder / CARD_NAME, model_card(facts))
    wanted = Wanted(KIND, facts.manifests.get("recipe", ""), parents=facts.manifests)
    finish_artifact(
        folder,
        wanted,
        command=command,
        counts={
            "parameters": facts.parameters,
            "tokens": facts.tokens,
            "planned_tokens": facts.planned_tokens,
        },
    )


def verify_release(folder: Path) -> list[str]:
    """List every difference between a release and its manifest, including unlisted files.

    Every file is read again; remembered comparisons do not count. Raises UserError when the folder
    is not a release, RunError when its manifest was altered.
    """
    return verify_files(folder, read_manifest(folder, KIND))
