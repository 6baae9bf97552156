"""Log messages on the terminal, one line each: rich's own handler breaks long ones, paths among them."""

import logging
from datetime import datetime

import rich
from rich.text import Text

_STYLES = {"DEBUG": "green", "INFO": "blue", "WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}


class RichLines(logging.Handler):
    """Time, level and message through rich's console, so that a progress bar stays below them; never wrapped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; as with every handler, what goes wrong is left to ``handleError``."""
        try:
            time = datetime.fromtimestamp(record.created).strftime("%X")
            level = (f"{record.levelname:<8} ", _STYLES.get(record.levelname, ""))
            line = Text.assemble((f"[{time}] ", "cyan dim"), level, self.format(record))
            rich.get_console().print(line, soft_wrap=True, highlight=False)
        except Exception:
            self.handleError(record)
