"""Files are there whole or not at all, whoever else writes them and whatever goes wrong."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from neuroada.runs.folder_lock import locked
from neuroada.runs.recorded_files import directory_hash
from neuroada.storage.whole_files import is_left_over, whole_file, whole_folder, write_together, write_whole

NO_PROCESS = 2**22 + 1
"""Above the highest process id that Linux gives."""


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


def test_an_error_that_names_no_file_is_given_its_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, whole_file(tmp_path / "a.json"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_files_written_together_are_replaced_in_order_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = tmp_path / "metrics.json", tmp_path / "result.json"
    write_together({first: "old", last: "old"})
    replace, replaced = os.replace, []
    monkeypatch.setattr("os.replace", lambda partial, path: (replaced.append(path), replace(partial, path)))
    write_together({first: "new", last: "new"})
    assert replaced == [first, last]
    with pytest.raises(UnicodeEncodeError):
        write_together({first: "newest", last: "\ud800"})
    assert [path.read_text() for path in (first, last)] == ["new", "new"]
    assert sorted(tmp_path.iterdir()) == [first, last]


class TestFolders:
    def test_one_that_is_not_complete_leaves_the_one_before(self, tmp_path: Path) -> None:
        adapter = tmp_path / "adapter"
        with whole_folder(adapter) as partial:
            (partial / "a").write_text("old")
        with pytest.raises(OSError, match="full"):
            self.fill_up(adapter)
        assert (adapter / "a").read_text() == "old"
        assert list(tmp_path.iterdir()) == [adapter]

    @staticmethod
    def fill_up(adapter: Path) -> None:
        with whole_folder(adapter) as partial:
            (partial / "a").write_text("new")
            raise OSError(28, "full")

    def test_a_complete_one_replaces_all_of_it(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            with whole_folder(tmp_path / "adapter") as partial:
                (partial / name).write_text(name)
        assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["b"]

    def test_what_a_killed_process_left_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "adapter.partial").mkdir()
        (tmp_path / "adapter.partial" / "old").write_text("")
        with whole_folder(tmp_path / "adapter") as partial:
            assert list(partial.iterdir()) == []


class TestLeftovers:
    """Of processes that were killed while they wrote."""

    @pytest.fixture
    def written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
        """Has a process begin to write a file."""

        def begin(pid: int, host: str = "here") -> Path:
            with monkeypatch.context() as patched:
                patched.setattr("os.getpid", lambda: pid)
                patched.setattr("socket.gethostname", lambda: host)
                with whole_file(tmp_path / "metrics.json") as found:
                    found.write_text("{")
            (tmp_path / "metrics.json").unlink()
            found.write_text("{")
            return found

        monkeypatch.setattr("socket.gethostname", lambda: "here")
        return begin

    def test_of_this_machine_are_known(self, written: Callable[..., Path]) -> None:
        assert is_left_over(written(NO_PROCESS))
        assert not is_left_over(written(os.getpid()))
        assert not is_left_over(written(1))
        assert not is_left_over(written(NO_PROCESS, host="there"))

    def test_who_holds_the_lock_deletes_those_of_all_machines(
        self, written: Callable[..., Path], tmp_path: Path
    ) -> None:
        left = [written(NO_PROCESS), written(NO_PROCESS, host="there")]
        living = written(os.getpid())
        (tmp_path / "boolq.rank0.partial.jsonl").write_text("")
        (tmp_path / "notes.partial").write_text("")
        with locked([tmp_path]):
            assert not any(path.exists() for path in left)
            assert living.exists()
            assert (tmp_path / "boolq.rank0.partial.jsonl").exists()
            assert (tmp_path / "notes.partial").exists()
