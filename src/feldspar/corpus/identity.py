"""The identity of settings that outlives new keys: folders built before stay finished."""

import json
from collections.abc import Set
from typing import Any

from feldspar.core.files import digest_of
from feldspar.recipe.base import Settings

_ADDED: dict[str, Any] = {
    "decontaminate": None,
    "only": {},
    "verify": None,
    "cluster": "components",
    "decontamination": "near",
    "transliterate": None,
    "filters": [],
}
"""Keys that were added after the first folders, and the values that change nothing."""
_WITHOUT_EFFECT = {"memory"}
"""Keys that never change the result."""


def settings_digest(settings: Settings, exclude: Set[str] = frozenset()) -> str:
    """A digest of all keys but ``exclude`` and those added later that are not in use."""
    value = _in_use(settings.model_dump(mode="json", exclude=set(exclude)))
    return digest_of(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def _in_use(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _in_use(item)
            for key, item in value.items()
            if key not in _WITHOUT_EFFECT and (key not in _ADDED or item != _ADDED[key])
        }
    return [_in_use(item) for item in value] if isinstance(value, list) else value
