"""Write metrics for TensorBoard, over steps."""

import time
from collections.abc import Mapping
from pathlib import Path

from feldspar.core.errors import missing_extra


class TensorBoardTracker:
    """Write event files below ``folder``.

    Events of a killed process from ``first_step`` on are purged.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise missing_extra("tensorboard", "track-tensorboard") from error
        # TensorBoard reads files in the order of their names, which begin with a second: of two
        # files of one second, the later would be purged by the earlier.
        while any(folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
            time.sleep(0.05)
        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def log(self, step: int, position: int, metrics: Mapping[str, float]) -> None:
        """Take one step's metrics, and its position as ``progress/tokens``."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.add_scalar("progress/tokens", position, step)

    def close(self) -> None:
        """Write what is left and close."""
        self._writer.close()
