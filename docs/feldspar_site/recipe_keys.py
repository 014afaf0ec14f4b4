"""Pages of the recipe: every key with its type, limits, default and description.

All of it comes from the JSON schema that ``feldspar config schema`` prints, so from the settings.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from feldspar.recipe.data_root import DataRecipe
from feldspar.recipe.root import Recipe
from feldspar.recipe.vision_root import VisionRecipe
from feldspar_site.commands import as_markdown

HUB = "reference/recipe-keys"
KINDS: tuple[tuple[str, str, str, type[BaseModel]], ...] = (
    ("", "", "Recipes of language models", Recipe),
    ("vision-", ", for images", "Recipes of networks for images", VisionRecipe),
)
"""Kinds of recipes: how the names of their pages begin, how the titles of these end, the title of
all, and the settings. A recipe of documents has some keys of the first kind and no other."""

INTRO = """# Recipe keys
`feldspar config explain KEY` says the same, and `feldspar config schema` prints it for an editor. \
[Recipes](../recipes.md) explains how a recipe is written. `N` stands for an index, `NAME` for a \
name of your own.
"""

Schema = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A section that a key may hold."""

    key: str
    """Dotted name of the section, with N for an index and NAME for a name."""
    schema: Schema
    choice: str | None = None
    """The ``type`` (or ``format``) that chooses it, where there are several."""

    @property
    def title(self) -> str:
        """Heading of the section."""
        return f"`{self.key}`" + (f", {self.choice}" if self.choice else "")


def recipe_key_pages() -> dict[str, str]:
    """Return the page of all top-level keys, and a page for each that holds others."""
    lines = [INTRO]
    pages = {}
    for prefix, ending, title, root in KINDS:
        schema = root.model_json_schema(by_alias=True)
        book = Book(schema["$defs"])
        lines += [f"## {title}", ""]
        plain = []
        for key, value in schema["properties"].items():
            required = key in schema["required"]
            if not list(book.variants(key, value)):
                plain += book.key_lines(key, value, required)
                continue
            name = f"{prefix}{key.replace('_', '-')}"
            lines_of_page = [
                f"# {as_markdown(key)}{ending}",
                "",
                *book.page_lines(key, value, required),
            ]
            pages[f"{HUB}/{name}.md"] = "\n".join(lines_of_page)
            lines.append(f"* [`{key}`](recipe-keys/{name}.md): {description(value)}")
        lines += ["", *plain]
    allowed = ", ".join(f"`{key}`" for key in DataRecipe.model_fields)
    lines += [
        "## Recipes of documents",
        "",
        f"They hold only {allowed}, with the same meaning.",
        "",
    ]
    return {f"{HUB}.md": "\n".join(lines), **pages}


class Book:
    """The sections of a schema, by name."""

    def __init__(self, sections: dict[str, Schema]) -> None:
        self.sections = sections

    def resolved(self, schema: Schema) -> Schema:
        """Return what a reference refers to; anything else as it is."""
        if "$ref" not in schema:
            return schema
        return self.sections[schema["$ref"].rpartition("/")[2]]

    def page_lines(self, key: str, schema: Schema, required: bool) -> Iterator[str]:
        """Yield the page of a top-level key with all keys below it, section after section."""
        yield from (description(schema), "")
        yield from (f"[{self.facts(schema, required)}]{{.facts}}", "")
        waiting = list(self.variants(key, schema))
        while waiting:
            section = waiting.pop(0)
            inner: list[Variant] = []
            if section.key != key or section.choice:
                yield from (f"## {section.title}", "")
            yield from (description(section.schema), "")
            for name, value in section.schema.get("properties", {}).items():
                own = f"{section.key}.{name}"
                needed = name in section.schema.get("required", ())
                yield from self.key_lines(own, value, needed)
                inner += self.variants(own, value)
            waiting = inner + waiting

    def key_lines(self, key: str, schema: Schema, required: bool) -> list[str]:
        """Return the definition of a key: its description, then type, limits and default."""
        told = description(schema)
        lines = [f"`{key}`", *([f": {told}", ""] if told else [])]
        return [*lines, f": [{self.facts(schema, required)}]{{.facts}}", ""]

    def facts(self, schema: Schema, required: bool) -> str:
        """Return type, limits and default of a key in words."""
        kind = self.kind(schema)
        if required:
            return f"{kind}. Required."
        default = schema.get("default")
        if default is None:
            return f"{kind}. Optional."
        return f"{kind}. Default: `{json.dumps(default, ensure_ascii=False)}`."

    def kind(self, schema: Schema) -> str:
        """Return the type of a value with its limits, in words."""
        words = list(dict.fromkeys(self.kinds(schema)))
        text = ", or ".join(words)
        return text[:1].upper() + text[1:]

    def kinds(self, schema: Schema) -> Iterator[str]:
        """Yield each type that a value may have; nothing for null, which is a key left out."""
        schema = {**self.resolved(schema), **{k: v for k, v in schema.items() if k != "$ref"}}
        several = schema.get("anyOf") or schema.get("oneOf")
        if several and "discriminator" in schema:
            names = " or ".join(f"`{name}`" for name in schema["discriminator"]["mapping"])
            yield f"a section with `{schema['discriminator']['propertyName']}` {names}"
        elif several:
            for each in several:
                yield from self.kinds(each)
        elif "const" in schema:
            yield f"`{json.dumps(schema['const'])}`"
        elif "enum" in schema:
            yield "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
        elif schema.get("type") != "null":
            yield self.plain_kind(schema)

    def plain_kind(self, schema: Schema) -> str:
        """Return the words for a type without alternatives."""
        match schema.get("type"):
            case "boolean":
                return "`true` or `false`"
            case "integer":
                least = (
                    {"minimum": schema["exclusiveMinimum"] + 1}
                    if "exclusiveMinimum" in schema
                    else {}
                )
                return f"whole number{limits({**schema, **least, 'exclusiveMinimum': None})}"
            case "number":
                return f"number{limits(schema)}"
            case "string" if schema.get("format") == "amount":
                return "amount with a unit"
            case "string":
                return "path" if schema.get("format") == "path" else "text"
            case "array" if "prefixItems" in schema:
                inner = "; ".join(" or ".join(self.kinds(each)) for each in schema["prefixItems"])
                return f"list of {len(schema['prefixItems'])}: {inner}"
            case "array":
                return f"list of: {' or '.join(self.kinds(schema['items']))}"
            case "object" if "properties" in schema:
                return "a section"
            case "object":
                named = values_by_name(schema)
                inner = [] if named is None else self.kinds(named)
                return f"names, each with: {' or '.join(inner) or 'any value'}"
        return "any value"

    def variants(self, key: str, schema: Schema) -> Iterator[Variant]:
        """Yield the sections that a key may hold, its list or its mapping included."""
        schema = self.resolved(schema)
        several = schema.get("anyOf") or schema.get("oneOf")
        if several:
            mapping = schema.get("discriminator", {}).get("mapping", {})
            chosen = {target: name for name, target in mapping.items()}
            for each in several:
                choice = chosen.get(each.get("$ref", ""))
                for found in self.variants(key, each):
                    own = (
                        f"`{schema['discriminator']['propertyName']}: {choice}`" if choice else None
                    )
                    yield Variant(found.key, found.schema, found.choice or own)
        elif "properties" in schema:
            yield Variant(key, schema)
        elif schema.get("type") == "array" and "items" in schema:
            yield from self.variants(f"{key}.N", schema["items"])
        elif (named := values_by_name(schema)) is not None:
            yield from self.variants(f"{key}.NAME", named)


def values_by_name(schema: Schema) -> Schema | None:
    """Return what each value of a mapping with free names is; None for another schema."""
    values = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    return next((value for value in values if isinstance(value, dict)), None)


def limits(schema: Schema) -> str:
    """Return the limits of a number in words."""
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    found = [
        f"{text} {schema[name]:,}" for name, text in words.items() if schema.get(name) is not None
    ]
    return f" {', '.join(found)}" if found else ""


def description(schema: Schema) -> str:
    """Return the description of a key or a section in one line of Markdown."""
    return as_markdown(schema.get("description", "").replace("``", "`"))
