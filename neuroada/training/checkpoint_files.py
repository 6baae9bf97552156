"""How Lightning's checkpoints reach the disk: whole or not at all, with a checksum."""

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from neuroada.storage.seals import seal
from neuroada.storage.whole_files import whole_file


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the target, with a checksum at the end, and renames.

    Lightning writes into TMPDIR and moves: onto another disk that is a copy, of which a kill leaves the first part.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Raises OSError, which names the file, if it cannot be written."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with whole_file(Path(path)) as partial:
            _write(checkpoint, partial)
            seal(partial)


def write_whole_checkpoints(trainer: lightning.Trainer) -> None:
    """Let a trainer write checkpoints so, unless its configuration says how they are written."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpoints()


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    try:
        with path.open("xb") as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:
        # torch finds that bytes are missing while it handles the error that says why.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
