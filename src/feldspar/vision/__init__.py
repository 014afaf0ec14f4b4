"""RevBiFPN (2206.14098): a reversible bidirectional feature pyramid, and its classifier.

``feldspar.vision.create_model`` builds one by name; see docs/methods/revbifpn.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feldspar.vision.models import create_model
else:
    # Their files load torch, so each is imported when its function is first asked for.
    _FUNCTIONS = {"create_model": "feldspar.vision.models"}

    def __getattr__(name):
        if name not in _FUNCTIONS:
            raise AttributeError(f"module 'feldspar.vision' has no attribute {name!r}")
        return getattr(import_module(_FUNCTIONS[name]), name)

    def __dir__():
        return __all__


__all__ = ["create_model"]
