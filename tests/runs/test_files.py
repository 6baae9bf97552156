"""Files of a run: written whole, whoever else writes them."""

import os
from pathlib import Path

import pytest

from neuroada.jobs.preparation import directory_hash
from neuroada.runs.files import write_whole


def test_two_processes_that_write_one_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sweep started twice writes the same list of runs."""
    replace, path = os.replace, tmp_path / "sweep.json"

    def after_the_other(partial: Path, target: Path) -> None:
        monkeypatch.setattr("os.replace", replace)
        monkeypatch.setattr("os.getpid", lambda: 1)
        write_whole(path, "of the other")
        replace(partial, target)

    monkeypatch.setattr("os.replace", after_the_other)
    write_whole(path, "own")
    assert path.read_text() == "own"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_half_written_is_no_content(tmp_path: Path) -> None:
    write_whole(tmp_path / "prompts.json", "{}")
    before = directory_hash(tmp_path)
    (tmp_path / "prompts.json.12.partial").write_text("{")
    assert directory_hash(tmp_path) == before
