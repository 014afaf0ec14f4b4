"""Write a recipe whose values each say where they come from."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.begin.choice import LEAST_STEPS, MOST_EPOCHS, SEQUENCES, Choice
from feldspar.begin.held_out import HeldOut
from feldspar.begin.pile import Pile, Source
from feldspar.core.readable import counted, size_text
from feldspar.recipe.sections.corpus import SourceSettings
from feldspar.recipe.sections.readers import TextReader

COMMENT_COLUMN, WIDTH = 44, 110
RECORD = "feldspar's speed record"


@dataclass(frozen=True)
class Places:
    """Where the recipe lies, and what is built beside it."""

    recipe: Path
    name: str
    data: Path
    """Folder of documents and shards."""
    run: Path | None = None
    """Run folder, where it is not the default one."""


def recipe_lines(
    pile: Pile, choice: Choice, held_out: HeldOut, places: Places, minutes: float
) -> Iterator[str]:
    """Yield the lines of the recipe."""
    command = ["feldspar", "new", *_shown(pile), "--minutes", f"{minutes:g}"]
    yield f"# Made by: {shlex.join(command)}"
    yield "# Each value says why it was chosen. Change what you like: feldspar config explain KEY"
    yield ""
    yield "schema_version: 1"
    yield f"name: {_text(places.name)}"
    yield from _corpus(pile, held_out, places)
    yield f"# A token holds about {choice.bytes_per_token:.1f} bytes of your text."
    if choice.start_from is None:
        yield _line(
            f"tokenizer: {{type: train_bpe, vocab_size: {choice.vocabulary}{_sample(pile)}}}",
            f"by the amount of text ({size_of(pile.new_bytes)}) and the size of the model",
        )
    else:
        base = _text(str(choice.start_from.expanduser().absolute()))
        yield _line(f"start_from: {{type: huggingface, path: {base}}}", "the model to train on")
        yield _line(f"tokenizer: {{type: huggingface, path: {base}}}", "the model's own")
    data = _text(f"{places.data.as_posix()}/shards-{choice.vocabulary}")
    yield _line(f"shards: {{path: {data}}}", "built by the first training, and kept")
    yield from _model(choice) if choice.start_from is None else _base(choice)
    yield _line("checkpoints: {every: 25% of run}", "a stopped run continues from the last one")
    yield _line("evaluation: {every: 20% of run}", "loss on the held-out documents")
    yield from _phases(pile, choice, minutes)
    yield ""
    yield "# Next:"
    yield from (f"#   {command}" for command in next_commands(places))


def next_commands(places: Places) -> list[str]:
    """Return the commands that use the recipe, in order."""
    recipe = shlex.quote(str(places.recipe))
    run = shlex.quote(str(places.run or Path("runs") / places.name))
    return [
        f"feldspar plan {recipe}",
        f"feldspar train {recipe}"
        if places.run is None
        else f"feldspar train {recipe} --out {run}",
        f"feldspar generate {run} --prompt 'Once'",
        f"feldspar release {run}",
    ]


def size_of(count: float) -> str:
    """Write a number of bytes with its unit, small ones as they are."""
    return size_text(count) if count >= 1e3 else f"{count:.0f} bytes"


def seen_from_recipe(path: Path, recipe: Path) -> str:
    """Return a path as the recipe must give it: relative to its folder where it is relative."""
    given = path.expanduser()
    if given.is_absolute():
        return str(given)
    return Path(os.path.relpath(Path.cwd() / given, recipe.resolve().parent)).as_posix()


def _shown(pile: Pile) -> list[str]:
    return list(dict.fromkeys(_one_line(str(each.finding.path)) for each in pile.sources))


def _corpus(pile: Pile, held_out: HeldOut, places: Places) -> Iterator[str]:
    yield "corpus:"
    path = _text(f"{places.data.as_posix()}/documents")
    yield _line(f"  path: {path}", "built by the first training, and kept")
    yield "  sources:"
    for source in pile.sources:
        yield from _source(source, places.recipe)
    if pile.many_short:
        short = sum(each.short_share * each.documents for each in pile.sources)
        why = f"{short / pile.documents:.0%} of the documents have fewer than 200 characters"
        yield _line("  clean: {short: 1}", f"keep short documents: {why}")
    else:
        yield _line("  clean: {short: 200}", "shorter documents (in characters) are removed")
    yield _line("  deduplicate: {threshold: 0.8}", "of documents alike to 80 %, one is kept")
    shares = f"validation: {held_out.validation:g}, test: {held_out.test:g}"
    yield _line(f"  split: {{{shares}}}", held_out.why)


def _source(source: Source, recipe: Path) -> Iterator[str]:
    about = "" if source.exact else "about "
    yield _line(
        f"    {_text(source.name)}:",
        f"{counted(source.files, 'file')}, {source.documents_text} "
        f"{'document' if source.documents == 1 else 'documents'}, "
        f"{about}{size_of(source.text_bytes)} of text",
    )
    settings: SourceSettings = source.settings
    given = settings.reader.model_dump(mode="json", exclude_defaults=True)
    reader = {"type": settings.reader.type} | given
    yield _line(f"      reader: {_flow(reader)}", _of_reader(source))
    yield f"      path: {_text(seen_from_recipe(source.finding.path, recipe))}"
    yield "      # licence: CC-BY-4.0  (name that of the text before you release the model)"
    if source.fields is not None:
        yield _line(f"      text_field: {_text(source.fields.text)}", source.fields.why)
        if source.fields.id != "id":
            why = "no field of this name: documents are named by file and line"
            named = "names the documents" if source.fields.id != "no_id" else why
            yield _line(f"      id_field: {_text(source.fields.id)}", named)


def _of_reader(source: Source) -> str:
    reader = source.settings.reader
    told = {
        "text": "one document a file",
        "code": "one document a file",
        "jsonl": "one document a line",
        "parquet": "one document a row",
        "warc": "one document a page",
        "huggingface": "the split train",
    }[source.finding.format]
    if isinstance(reader, TextReader) and reader.document_characters is not None:
        told = "cut into documents, so that some can be held out"
    if source.finding.bad:
        told += f"; {len(source.finding.bad)} files are left out, which are no UTF-8 text"
    elif source.finding.exclude:
        told += "; hidden folders and folders of installed packages are left out"
    return f"{told}; letters: {source.letters}"


def _sample(pile: Pile) -> str:
    """Return a limit of the tokenizer's sample for much text; it would take long to train."""
    return ", sample_bytes: 50000000" if pile.new_bytes > 50e6 else ""


def _model(choice: Choice) -> Iterator[str]:
    sections, head = choice.sections, choice.sections["model"]
    head_dim = head["d_model"] // head["n_heads"]
    why = {
        "n_layers": f"{choice.parameters:,} parameters in all: the size for "
        f"{choice.tokens / 1e6:.3g} M tokens",
        "d_model": f"at least {choice.tokens_per_parameter:g} tokens per parameter",
        "n_heads": f"heads of {head_dim}",
        "d_ff": "8/3 of d_model: SwiGLU has three matrices",
        "max_sequence_length": f"256 was better than 512 in {RECORD}"
        if choice.context == 256
        else "tokens that the model sees at once",
        "positions": "these five keys make a Llama: transformers loads it by itself",
    }
    yield "model:"
    for key, value in sections["model"].items():
        yield _line(f"  {key}: {_flow(value)}", why.get(key, ""))
    yield "# muP: the learning rate stays right when you change the width."
    yield f"parametrization: {_flow(sections['parametrization'])}"
    yield _line(f"optimizer: {_flow(sections['optimizer'])}", f"better than AdamW in {RECORD}")
    yield "# Learning rate: up over 3 % of the run, then down to 2 % of its peak."
    yield f"schedule: {_flow(sections['schedule'])}"


def _base(choice: Choice) -> Iterator[str]:
    yield f"# The model's own shape: {choice.parameters:,} parameters. Do not change it."
    yield "model:"
    for key, value in choice.sections["model"].items():
        yield f"  {key}: {_flow(value)}"
    parametrization = f"parametrization: {_flow(choice.sections['parametrization'])}"
    yield _line(parametrization, "a low rate: the model knows a lot already")
    yield f"optimizer: {_flow(choice.sections['optimizer'])}"
    yield "# Learning rate: up over a tenth of the run, then down to a tenth of its peak."
    yield f"schedule: {_flow(choice.sections['schedule'])}"


def _phases(pile: Pile, choice: Choice, minutes: float) -> Iterator[str]:
    speed = f"{choice.pace.undisturbed:,.0f} tokens a second"
    if choice.bound_by == "minutes":
        why = f"{minutes:g} minutes at {speed}, measured on this machine"
    else:
        why = f"{MOST_EPOCHS} passes over the text; {choice.seconds / 60:.2g} minutes at {speed}"
    repeat = (
        f"about {choice.epochs:.2g} passes over {choice.text_tokens / 1e6:.3g} M tokens; up to "
        f"{MOST_EPOCHS} help nearly as much as new text (arXiv 2305.16264)"
    )
    batch = f"{choice.tokens // (choice.sequences * choice.context):,} steps"
    if choice.sequences < SEQUENCES:
        batch += f"; small, so that there are about {LEAST_STEPS}"
    yield "phases:"
    yield "  - name: all"
    yield _line(f"    length: {choice.tokens} tokens", why)
    yield _line(f"    batch: {{sequences: {choice.sequences}}}", batch)
    if choice.start_from is not None:
        yield _line(f"    context_length: {choice.context}", "tokens of a sequence")
    mixture = "sources by their tokens" if len(pile.sources) > 1 else "there is one source"
    yield _line("    mixture: natural", mixture)
    yield _line("    allow_repeat: true", repeat)


def _line(text: str, comment: str = "") -> str:
    """Return a line with its comment behind it, or above it where both are too long together."""
    if not comment:
        return text
    behind = f"{text:{COMMENT_COLUMN}}  # {_one_line(comment)}"
    if len(behind) <= WIDTH:
        return behind
    place = re.match(r"[ -]*", text)
    return f"{' ' * len(place[0] if place else '')}# {_one_line(comment)}\n{text}"


def _one_line(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


def _text(text: str) -> str:
    """Write a text as YAML: bare where it is plain, else in quotes."""
    plain = all(each.isalnum() or each in "-_./" for each in text) and text[:1].isalpha()
    return text if plain and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)


_WORDS = {"true", "false", "null", "yes", "no", "on", "off"}


def _flow(value: Any) -> str:
    """Write plain values on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        bare = all(each.isalnum() or each in "-_.% " for each in value) and value[:1] not in "-."
        return value if bare and value[:1] else _text(value)
    return json.dumps(value)
