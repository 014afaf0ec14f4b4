"""Documents in, documents out: sources, cleaning, deduplication, split."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Archive": "settings",
        "CorpusSettings": "settings",
        "DeduplicateSettings": "settings",
        "Document": "document",
        "Report": "report",
        "build_corpus": "build",
        "cleaned": "clean",
        "configuration_digest": "build",
        "deduplicate_files": "files",
        "documents": "store",
        "normalised": "clean",
        "sources": "store",
    },
)
