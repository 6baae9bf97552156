"""Log messages are one line each, whatever the width of the terminal."""

import io
import logging

import pytest
import rich
from rich.console import Console

from neuroada.command_line.log_lines import RichLines

PATH = "/a/very/long/path" * 12


def shown(monkeypatch: pytest.MonkeyPatch, message: str, **options: object) -> str:
    stream = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=stream, width=40, **options))  # type: ignore[arg-type]
    handler = RichLines()
    handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "saved %s", (message,), None))
    return stream.getvalue()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_path_is_never_wrapped(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    text = shown(monkeypatch, PATH, force_terminal=is_terminal, color_system=None)
    assert text.count("\n") == 1
    assert text.endswith(f"] WARNING  saved {PATH}\n")


def test_brackets_in_a_message_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "saved [red]x[/red]" in shown(monkeypatch, "[red]x[/red]")
