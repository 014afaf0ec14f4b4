"""Read and write what a tokenizer's folder declares beside ``tokenizer.json``.

The files of Hugging Face name the special tokens, say whether a text begins with one, and hold the
chat template and the tokens that end generated text. A copied or extended tokenizer keeps them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically
from feldspar.core.json_files import read_json, write_json

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
CHAT_TEMPLATE_FOLDER = "additional_chat_templates"
GENERATION_FILE = "generation_config.json"
DECLARATION_FILES = (CONFIG_FILE, SPECIAL_TOKENS_FILE, CHAT_TEMPLATE_FILE, GENERATION_FILE)
"""Names of the files that ``Declaration`` reads and writes."""
END_OF_DOCUMENT_KEY = "feldspar_end_of_document"
"""Our key in the configuration, written where another token than the end of sequence ends
documents."""
ID_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
CLEAN_UP_KEY = "clean_up_tokenization_spaces"
_ADD_KEYS = ("add_bos_token", "add_eos_token")
_CODE_KEYS = ("auto_map", "tokenizer_class")


@dataclass(frozen=True)
class Declaration:
    """Contents of the files beside ``tokenizer.json``; empty for a tokenizer that was trained here.

    ``tokenizer_config.json`` may hold the chat template; a file of its own comes first.
    """

    configuration: Mapping[str, Any] = field(default_factory=dict)
    """Contents of ``tokenizer_config.json``."""
    special_tokens_map: Mapping[str, Any] = field(default_factory=dict)
    """Contents of ``special_tokens_map.json``."""
    template_file: str | None = None
    """Contents of ``chat_template.jinja``."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """Contents of ``generation_config.json``; without the file, the ids of special tokens in the
    model's ``config.json``."""

    @classmethod
    def read(cls, folder: Path) -> "Declaration":
        """Read the files in ``folder``; absent ones declare nothing.

        Raises UserError for a file that is not JSON, or not UTF-8.
        """
        configuration = _mapping(folder / CONFIG_FILE)
        template = _text(folder / CHAT_TEMPLATE_FILE)
        named = {
            path.stem: _text(path) for path in sorted((folder / CHAT_TEMPLATE_FOLDER).glob("*"))
        }
        if named:  # one file then holds all of them
            named = ({} if template is None else {"default": template}) | named
            entries = [{"name": name, "template": text} for name, text in named.items()]
            configuration, template = configuration | {"chat_template": entries}, None
        generation = _mapping(folder / GENERATION_FILE)
        if not generation:
            model = _mapping(folder / "config.json")
            generation = {key: model[key] for key in ID_KEYS if model.get(key) is not None}
        return cls(configuration, _mapping(folder / SPECIAL_TOKENS_FILE), template, generation)

    def write(
        self,
        folder: Path,
        end_of_document: str | None = None,
        begin_of_sequence: str | None = None,
    ) -> None:
        """Write the files.

        ``end_of_document`` ends documents and ``begin_of_sequence`` begins texts; by default these
        are the tokens that are declared for it.

        References to a tokenizer's own code are left out, because the code is not copied.
        """
        own: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        configuration = dict(self.configuration)
        if "auto_map" in configuration:
            for key in _CODE_KEYS:
                configuration.pop(key, None)
        if end_of_document is not None:
            if self.end_of_sequence is None:
                own["eos_token"] = end_of_document
                configuration.pop("eos_token", None)
            if not configuration:
                own[CLEAN_UP_KEY] = False
            if begin_of_sequence is not None and "bos_token" not in self.special_tokens:
                own["bos_token"] = begin_of_sequence
                configuration.pop("bos_token", None)
            configuration.pop(END_OF_DOCUMENT_KEY, None)
            if self.end_of_sequence not in (None, end_of_document):
                configuration[END_OF_DOCUMENT_KEY] = end_of_document
        if configuration or end_of_document is not None:
            write_json(folder / CONFIG_FILE, own | configuration, ascii_only=True)
        if self.special_tokens_map:
            write_json(folder / SPECIAL_TOKENS_FILE, self.special_tokens_map, ascii_only=True)
        if self.template_file is not None:
            write_atomically(folder / CHAT_TEMPLATE_FILE, self.template_file)
        if self.generation:
            write_json(folder / GENERATION_FILE, self.generation, ascii_only=True)

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """Strings of the special tokens by name, such as ``bos_token``."""
        found = {}
        for values in (self.special_tokens_map, self.configuration):
            for name, value in values.items():
                content = value.get("content") if isinstance(value, dict) else value
                if name.endswith("_token") and name not in _ADD_KEYS and isinstance(content, str):
                    found[name] = content
        return found

    @property
    def end_of_sequence(self) -> str | None:
        """The end-of-sequence token."""
        return self.special_tokens.get("eos_token")

    @property
    def end_of_document(self) -> str | None:
        """The token that ends documents: the one that was chosen here, or else the end of
        sequence."""
        chosen = self.configuration.get(END_OF_DOCUMENT_KEY)
        return chosen if isinstance(chosen, str) else self.end_of_sequence

    @property
    def names_all(self) -> bool:
        """True if special tokens are declared beside the end of sequence, as in tokenizers that
        were not trained here."""
        return bool(self.generation or self.special_tokens.keys() - {"eos_token"})

    @property
    def is_own(self) -> bool:
        """True for the configuration of a tokenizer that names no token but the end of documents.

        Earlier versions wrote it for every tokenizer, and no window of theirs had a beginning.
        """
        return self.configuration.keys() == {"tokenizer_class", "eos_token", CLEAN_UP_KEY}

    @property
    def chat_template(self) -> str | None:
        """The default chat template, a Jinja template over ``messages``; None if there is none."""
        if self.template_file is not None:
            return self.template_file
        found = self.configuration.get("chat_template")
        if isinstance(found, list):
            named = {each.get("name"): each.get("template") for each in found if each}
            found = named.get("default")
        return found if isinstance(found, str) else None

    @property
    def generation_end_ids(self) -> tuple[int, ...]:
        """Ids that end generated text, as the generation configuration names them."""
        found = self.generation.get("eos_token_id")
        ids = found if isinstance(found, list) else [found]
        return tuple(each for each in ids if isinstance(each, int))


def _mapping(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _text(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
