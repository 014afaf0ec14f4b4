"""RevBiFPN (2206.14098): a reversible bidirectional feature pyramid, and its classifier.

The functions that this file offers are for users (docs/methods/revbifpn.md); inside the package,
their files are imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feldspar.vision.export import export_network, export_run
    from feldspar.vision.models import create_model
    from feldspar.vision.timm_registry import register_with_timm
else:
    # Their files load torch, so each is imported when its function is first asked for.
    _FUNCTIONS = {
        "create_model": "feldspar.vision.models",
        "export_network": "feldspar.vision.export",
        "export_run": "feldspar.vision.export",
        "register_with_timm": "feldspar.vision.timm_registry",
    }

    def __getattr__(name):
        if name not in _FUNCTIONS:
            raise AttributeError(f"module 'feldspar.vision' has no attribute {name!r}")
        return getattr(import_module(_FUNCTIONS[name]), name)

    def __dir__():
        return __all__


__all__ = ["create_model", "export_network", "export_run", "register_with_timm"]
