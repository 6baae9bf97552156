"""Run one part: in this process, or in one of its own that is ended at the part's limit.

On a GPU every part has a process: a kernel that reads where it must not leaves the whole process unable to use the GPU,
one that hangs cannot be interrupted, and what a part leaves in memory would be missing to the next one.
"""

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from neuroada.costs.reasons import reason_of

if TYPE_CHECKING:  # a child imports what its part needs, and no more
    from neuroada.gpu_check.setting import Row, Rows, Setting


class PartEnded(Exception):
    """A part that ended before it had given all of its rows; the message says why."""


Run = Callable[["Rows", "Setting", float], Iterator["Row"]]
"""Rows of a part within a limit in seconds; raises PartEnded."""


def run_here(rows: "Rows", setting: "Setting", limit_seconds: float) -> "Iterator[Row]":
    """In this process; the limit is looked at after each row.

    Raises:
        PartEnded: It raised an error, or took too long.
    """
    started = time.monotonic()
    try:
        for row in rows(setting):
            yield row
            if time.monotonic() - started > limit_seconds:
                raise PartEnded(_too_long(limit_seconds))
    except PartEnded:
        raise
    except Exception as error:  # whatever a kernel, a driver or a library raises
        raise PartEnded(reason_of(error)) from error


def run_in_child(rows: "Rows", setting: "Setting", limit_seconds: float) -> "Iterator[Row]":
    """In a new process, which is killed at the limit.

    Raises:
        PartEnded: It raised an error, took too long, or its process died.
    """
    # A fork would inherit threads, and a GPU's state that it cannot use.
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(sending, rows, setting), daemon=True)
    child.start()
    sending.close()  # so that the child's end is the only one, and its death ends the reading
    deadline = time.monotonic() + limit_seconds
    try:
        while True:
            if not receiving.poll(max(0.0, deadline - time.monotonic())):
                raise PartEnded(_too_long(limit_seconds))
            kind, content = _received(receiving)
            if kind == "row":
                yield content
            elif kind == "failed":
                raise PartEnded(content)
            elif kind == "done":
                return
            else:
                child.join()
                raise PartEnded(f"its process ended with status {child.exitcode}")
    finally:
        child.kill()
        child.join()
        receiving.close()


def _received(connection: Connection) -> tuple[str, Any]:
    try:
        kind, content = connection.recv()
    except EOFError:
        return "died", None
    return kind, content


def _send(sending: Connection, rows: "Rows", setting: "Setting") -> None:
    """What the child does."""
    import rich

    # The terminal belongs to the parent's progress bar; reasons are in the rows.
    rich.reconfigure(quiet=True)
    logging.disable(logging.WARNING)
    try:
        for row in rows(setting):
            sending.send(("row", row))
    except Exception as error:  # whatever a kernel, a driver or a library raises
        sending.send(("failed", reason_of(error)))
    else:
        sending.send(("done", None))


def _too_long(limit_seconds: float) -> str:
    return f"took longer than {limit_seconds:.0f} s"
