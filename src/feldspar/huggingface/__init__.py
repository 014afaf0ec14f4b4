"""Models in and out of Hugging Face folders: GPT-2, Llama, and our own self-contained class."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ARCHITECTURES": "architectures",
        "ImportedModel": "import_folder",
        "export_model": "export_folder",
        "fold": "folding",
        "import_model": "import_folder",
        "imported_scaling": "import_folder",
        "unfold": "folding",
        "write_imported": "import_folder",
    },
)
