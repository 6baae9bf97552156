"""How progress is shown: a bar on a terminal, else log lines."""

from lightning.pytorch.callbacks import Callback
from rich import get_console

from neuroada.training.callbacks.progress_bar import ProgressBar
from neuroada.training.callbacks.progress_lines import ProgressLines


def progress(refresh_rate: int = 10, seconds_between_lines: float = 30.0) -> Callback:
    """The callback for where the output goes.

    Args:
        refresh_rate: Redrawings of the bar per second.
        seconds_between_lines: Seconds between two log lines.
    """
    if get_console().is_terminal:
        return ProgressBar(refresh_rate)
    return ProgressLines(seconds_between_lines)
