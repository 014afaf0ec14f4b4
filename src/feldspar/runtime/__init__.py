"""How a run is executed and kept: folder, checkpoints, guards, signals, processes, device."""

from feldspar.core.lazy import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Checkpoint": "checkpoint",
        "CheckpointSettings": "settings",
        "CheckpointStore": "checkpoint_store",
        "Distribution": "distributed",
        "GracefulStop": "signals",
        "KeepSettings": "settings",
        "MetricsWriter": "metrics",
        "NonFinitePolicy": "guards",
        "PeakFlops": "device",
        "RunFolder": "run_folder",
        "RuntimeSettings": "settings",
        "Speed": "live",
        "SpeedMeter": "live",
        "Spike": "guards",
        "SpikeDetector": "guards",
        "Tracker": "metrics",
        "TrainingDisplay": "live",
        "accumulate": "distributed",
        "all_finite": "guards",
        "autocast": "device",
        "choose_compile": "device",
        "choose_device": "device",
        "choose_precision": "device",
        "keep_freed_pages": "allocator",
        "on_each": "collectives",
        "on_first": "collectives",
        "peak_flops": "device",
        "set_threads": "threads",
        "unwrap": "distributed",
    },
)
