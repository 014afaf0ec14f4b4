"""Make text safe to show: what would steer a terminal is written out instead."""

import re

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of writing
    "\ud800-\udfff]"  # halves of surrogate pairs, which have no bytes
)


def visible(text: str) -> str:
    r"""Write control characters as ``\u001b``, the form that JSON and Python read back."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
