"""Attacks that take minutes: ``make stress`` runs them and writes what they measured into docs/reliability.md."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from .commands import FINETUNE
from .figures import FIGURES, PAGE, Figure, store, stored, with_table
from .forked_runs import run

_PROPERTY = "figure"


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``tally(promise=..., attack=..., held=71, of=71)`` records a row for docs/reliability.md if the test passes.

    The test itself asserts that ``held`` is ``of``.
    """

    def record(*, promise: str, attack: str, held: int, of: int) -> None:
        day = datetime.now(UTC).date().isoformat()
        figure = Figure(promise, attack, request.node.nodeid.partition("[")[0], held, of, day)
        # Through the report: with xdist, the test runs in another process than the one that writes the page.
        request.node.user_properties.append((_PROPERTY, asdict(figure)))

    return record


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the row of a test that passed at once: a run of hours may be stopped before its end."""
    if report.when != "call" or not report.passed or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if measured := [Figure(**values) for name, values in report.user_properties if name == _PROPERTY]:
        store(measured)
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), stored(FIGURES)), encoding="utf-8")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, backbone: Path, choice_row: object, sum_row: object) -> Path:
    """A folder with a backbone, data, and general text."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "general.txt").write_text("A question is answered with true or false. " * 50, encoding="utf-8")
    shutil.copytree(backbone, folder / "backbone")
    for name, make, numbers in (
        ("boolq/train", choice_row, range(22)),
        ("boolq/test", choice_row, range(100, 109)),
        ("AddSub/test", sum_row, range(7)),
    ):
        path = folder / "data" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([make(number) for number in numbers]), encoding="utf-8")  # type: ignore[operator]
    return folder


@pytest.fixture(scope="module")
def trained(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a fine-tune."""
    folder = tmp_path_factory.mktemp("trained") / "folder"
    shutil.copytree(inputs, folder)
    ended = run(FINETUNE, folder)
    assert ended.code == 0, ended.output
    return folder
