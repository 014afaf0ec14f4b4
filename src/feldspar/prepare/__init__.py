"""Find what a recipe needs before it trains; build what is missing, or refuse."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "STARTS": "stages",
        "Stage": "stages",
        "State": "stages",
        "stages_of": "stages",
        "build_documents": "build",
        "build_missing": "build",
        "build_tokens": "build",
        "require_buildable": "build",
        "require_ready": "build",
    },
)
