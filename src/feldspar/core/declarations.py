"""Read what a part of a model declares about itself.

A part declares by an attribute that maps names to meanings, such as ``parameter_roles``. A foreign
part declares nothing.
"""

from collections.abc import Mapping
from typing import Any


def declared(part: object, attribute: str) -> Mapping[str, Any]:
    """Return the mapping that ``part`` holds in ``attribute``, or an empty one."""
    return getattr(part, attribute, {})
