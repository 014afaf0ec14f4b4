"""Training: tasks, optimizer, the loop over phases, runs that resume exactly."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "train": "run",
        "RunResult": "lifecycle",
        "LoadedRun": "load",
        "load_run": "load",
        "open_shards": "data",
        "source_tokens": "data",
    },
)
