"""RevBiFPN (2206.14098): a reversible bidirectional feature pyramid, and its classifier."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "RevBiFPN": "revbifpn",
        "RevBiFPNSettings": "settings",
        "count_network": "counts",
        "revbifpn_settings": "settings",
        "space_to_depth": "stem",
    },
)
