"""The model card of a release, written from its record; every figure comes from records."""

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from feldspar.core.progress import tokens_of_plan

MARKUP = re.compile(r"[\\`*_{}\[\]<>#|!~&$]")
"""Characters that Markdown or HTML may read as markup."""
LINE_START = re.compile(r"^([0-9]*)([-+=:.)])")
"""Characters that begin a list, a rule or a heading at the start of a line."""


CARD_NAME = "README.md"


def model_card(record: Mapping[str, Any]) -> str:
    """Write the card of a release, by its record, with the header that model hubs read."""
    identity, model = record["identity"], record["model"]
    licence, kind = identity["licences"]["weights"], model["parametrization"]["type"]
    authors = ", ".join(map(plain_text, identity.get("authors", ())))
    lines = [
        *_header(identity),
        f"# {plain_text(identity['name'])}",
        "",
        *([plain_text(identity["description"]), ""] if identity["description"] else []),
        "| | |",
        "|---|---|",
        *([f"| authors | {authors} |"] if authors else []),
        f"| class | `{model['class']}` |",
        f"| parameters | {model['parameters']:,} |",
        f"| context | {model['context_length']:,} tokens |",
        f"| trained on | {trained_on(record['training'])} |",
        f"| trained as | {kind}, exported in standard parametrization |",
        f"| licence of the weights | {plain_text(licence or 'not stated')} |",
        f"| open | {record['openness']['level']} |",
        "",
        *_use(_has_own_code(model)),
        "",
        "## Intended use",
        (
            "Research on language models and their training, and a base to continue from. The "
            "model continues text; it does not answer or obey."
        ),
        *_data(record["data"]["sources"]),
        *_results(record["evaluations"]),
        *_checkpoints(record["checkpoints"]),
        "",
        "## Limits",
        (
            "A base model without instruction tuning or safety training. It repeats what its data "
            "holds, errors and bias included. The figures above say nothing of other text."
        ),
        *_openness(record["openness"]),
        "",
        "## Verify, continue, reproduce",
        "`release.json` lists every file with its SHA-256. In this folder:",
        "```sh",
        *(command for commands in record["reproduction"].values() for command in commands),
        "```",
        f"* recipe: `{identity['recipe']}`",
        f"* shards: `{identity['shards']}`",
        "",
    ]
    return "\n".join(lines)


def checkpoint_card(record: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> str:
    """Write the card of one checkpoint, which points to the card of the release."""
    name = plain_text(record["identity"]["name"])
    lines = [
        *_header(record["identity"]),
        f"# {name} at step {checkpoint['step']:,}",
        "",
        (
            f"The model after {checkpoint['tokens']:,} tokens, in phase "
            f"{plain_text(checkpoint['phase'])}. The branch `main` holds the release: card, data "
            "order, metrics, and this checkpoint with all that training needs to continue from it."
        ),
        "",
        *_use(_has_own_code(record["model"])),
        "",
    ]
    return "\n".join(lines)


def _header(identity: Mapping[str, Any]) -> list[str]:
    licence = identity["licences"]["weights"]
    return [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [feldspar]",
        *([] if licence is None else [f"license: {json.dumps(licence)}"]),
        "---",
    ]


def trained_on(training: Mapping[str, Any]) -> str:
    """Say how many tokens were read, and whether the run was to read more."""
    tokens, planned = training["tokens"], training["planned_tokens"]
    if planned is None:
        return f"{tokens:,} tokens (how many were planned is not known)"
    if tokens < planned:
        return f"{tokens_of_plan(tokens, planned)}: **the run is unfinished**"
    return f"{tokens:,} tokens, as planned"


def _has_own_code(model: Mapping[str, Any]) -> bool:
    from feldspar.huggingface.own import OWN  # loads torch

    return model["class"] == OWN


def _data(sources: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            plain_text(name),
            f"{source['documents']:,}" if "documents" in source else "unknown",
            f"{source['tokens']['train']['tokens']:,}"
            if "train" in source.get("tokens", {})
            else "",
            f"{sum(each['documents'] for each in source['removed'].values()):,}"
            if "removed" in source
            else "unknown",
            plain_text(source.get("licence", "unknown")),
        )
        for name, source in sources.items()
    ]
    if not rows:
        return []
    return [
        "",
        "## Data",
        *_table(("source", "documents", "training tokens", "removed documents", "licence"), rows),
    ]


def _results(evaluations: Iterable[Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for evaluation in evaluations:
        rows = result_rows(evaluation["figures"])
        if rows:
            title = f"## Results: {plain_text(evaluation['title'])}"
            if checkpoint := evaluation.get("checkpoint"):
                title += f" (checkpoint at {checkpoint['tokens']:,} tokens)"
            lines += ["", title, *_table(("what", "measure", "value", "standard error"), rows)]
    return lines


def result_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the rows of recorded figures: what, measure, value, standard error.

    ``figures`` are what ``feldspar evaluate --json`` prints: bits per byte overall and by source,
    or the metrics of each task, which get their mean.
    """
    if isinstance(figures.get("sources"), Mapping):
        parts = {**figures["sources"], "overall": figures}
        return [
            (plain_text(name), "bits per byte", f"{own['bits_per_byte']:.4f}", "")
            for name, own in parts.items()
            if isinstance(own, Mapping) and isinstance(own.get("bits_per_byte"), float)
        ]
    rows = []
    for task, measured in figures.items():
        for name in _metrics(measured) if isinstance(measured, Mapping) else ():
            chance, error = measured.get("chance"), measured.get(f"{name}_stderr")
            beside = isinstance(chance, float) and name.startswith("acc")
            measure = plain_text(name) + (f" (chance {chance:.2f})" if beside else "")
            spread = f"{error:.4f}" if isinstance(error, float) else ""
            rows.append((plain_text(task), measure, f"{measured[name]:.4f}", spread))
    return rows + _means(list(figures.values()))


def _metrics(measured: Mapping[str, Any]) -> list[str]:
    """Return the names of a task's metrics."""
    return [
        name
        for name, value in measured.items()
        if isinstance(value, float) and not name.endswith("_stderr") and name != "chance"
    ]


def _means(tasks: list[Any]) -> list[tuple[str, str, str, str]]:
    """Return a row for each metric that all tasks have: its mean over them, each counted once.

    A group has no number of items, and its members stand beside it: then there is no mean.
    """
    count = len(tasks)
    if count < 2 or not all(isinstance(task, Mapping) and task.get("items") for task in tasks):
        return []
    rows = []
    for name in (each for each in _metrics(tasks[0]) if all(each in _metrics(t) for t in tasks)):
        errors = [task.get(f"{name}_stderr") for task in tasks]
        known = all(isinstance(error, float) for error in errors)
        spread = f"{math.hypot(*errors) / count:.4f}" if known else ""
        mean = sum(task[name] for task in tasks) / count
        rows.append((f"mean of {count} tasks", plain_text(name), f"{mean:.4f}", spread))
    return rows


def _checkpoints(checkpoints: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            f"{each['tokens']:,}",
            f"{each['step']:,}",
            plain_text(each["phase"]),
            "yes" if each["optimizer"] else "no",
            f"{loss:.4f}"
            if isinstance(loss := each["metrics"].get("validation/loss"), float)
            else "",
        )
        for each in checkpoints
    ]
    if not rows:
        return []
    heads = ("tokens", "step", "phase", "state of the optimizer", "last validation loss")
    return ["", "## Checkpoints", *_table(heads, rows)]


def _openness(openness: Mapping[str, Any]) -> list[str]:
    lines = ["", f"## How open: {openness['level']}"]
    for pillar in openness["pillars"].values():
        state = "complete" if pillar["complete"] else "; ".join(map(plain_text, pillar["missing"]))
        lines.append(f"* {pillar['about']}: {state}")
    return lines


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ("---",) * len(heads), *rows)]


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
