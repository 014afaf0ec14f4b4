"""The class of transformers that a model is exported as, and the settings that decide it."""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.architectures import ARCHITECTURES, expressed_by
from feldspar.huggingface.own import OWN


@dataclass(frozen=True)
class ExportClass:
    """The class of an exported model."""

    name: str
    nearest: str
    """The class in transformers that lacks the least; ``name`` itself where it is such a class."""
    needs: tuple[str, ...]
    """The changes of settings that ``nearest`` would need; empty where none is needed."""

    @property
    def has_own_code(self) -> bool:
        """Tell whether the model brings the code of its class (trust_remote_code=True)."""
        return self.name == OWN

    @property
    def description(self) -> str:
        """Describe the class, and the settings that keep it from being a class in transformers."""
        if not self.has_own_code:
            return f"{self.name}, which transformers loads by itself"
        return (
            f"{self.name}, which brings its own code (trust_remote_code=True): "
            f"{self.nearest} would need {'; '.join(self.needs)}"
        )

    def record(self) -> dict[str, Any]:
        """Return plain values for a plan."""
        return {
            "class": self.name,
            "own_code": self.has_own_code,
            "nearest": self.nearest,
            "needs": list(self.needs),
            "description": self.description,
        }


def export_class(description: ModelDescription) -> ExportClass:
    """Choose the first class that can express the model, as an export does by default."""
    missing: dict[str, list[str]] = {}
    for adapter in takewhile(lambda each: each.hf_class != OWN, ARCHITECTURES.values()):
        expressed = expressed_by(adapter, description)
        missing[adapter.hf_class] = adapter.misfits(expressed.settings, expressed.scaling)
    nearest = min(missing, key=lambda name: len(missing[name]))
    needs = tuple(missing[nearest])
    return ExportClass(OWN if needs else nearest, nearest, needs)
