"""How errors are reported on the terminal."""

from pathlib import Path

import pytest

from neuroada.config.errors import (
    FailureElsewhere,
    RankError,
    UserError,
    rejected,
    removed_if_empty,
    reported_in_one_line,
    suggest,
)
from neuroada.sparse.errors import AdapterError


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize(("kind", "status"), [(UserError, 2), (AdapterError, 2), (FailureElsewhere, 1)])
def test_the_program_ends_with_the_message(
    kind: type[Exception], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught, reported_in_one_line():
        raise kind("seed=-1: too small")
    assert caught.value.code == status
    assert capsys.readouterr().err == "neuroada: seed=-1: too small\n"


@pytest.mark.parametrize(("kind", "said"), [(UserError, ""), (RankError, "neuroada: seed=-1: too small\n")])
def test_of_all_ranks_the_first_says_what_all_raise(
    kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as caught, reported_in_one_line():
        raise kind("seed=-1: too small")
    assert caught.value.code == 2
    assert capsys.readouterr().err == said


def test_a_name_in_a_message_cannot_hide_or_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), reported_in_one_line():
        raise rejected(["a\nneuroada: done\x1b[2K\u202e", "b: \ud800 \u2028"])
    assert capsys.readouterr().err == (
        "neuroada: config rejected:\n  - a\\nneuroada: done\\x1b[2K\\u202e\n  - b: \\ud800 \\u2028\n"
    )


def test_other_errors_keep_their_trace() -> None:
    with pytest.raises(ZeroDivisionError), reported_in_one_line():
        raise ZeroDivisionError


def test_folders_made_for_nothing_go_again() -> None:
    folder = Path.cwd() / "outputs" / "finetune" / "s42"
    folder.mkdir(parents=True)
    with removed_if_empty(folder):
        pass
    assert Path.cwd().is_dir()
    assert list(Path.cwd().iterdir()) == []


def test_folders_of_other_runs_stay() -> None:
    folder = Path.cwd() / "outputs" / "finetune" / "s42"
    other = Path.cwd() / "outputs" / "finetune" / "s43"
    folder.mkdir(parents=True)
    other.mkdir()
    (other / "result.json").write_text("{}")
    with removed_if_empty(folder):
        pass
    assert not folder.exists()
    assert (other / "result.json").is_file()


def test_a_folder_with_content_stays() -> None:
    folder = Path.cwd() / "outputs"
    folder.mkdir()
    (folder / "config.yaml").write_text("")
    with pytest.raises(UserError), removed_if_empty(folder):
        raise UserError("wrong")
    assert (folder / "config.yaml").is_file()


def test_empty_parents_outside_the_working_directory_are_not_ours(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "empty" / "run"
    folder.mkdir(parents=True)
    with removed_if_empty(folder):
        pass
    assert folder.parent.is_dir()
    assert not folder.exists()


def test_the_working_directory_is_never_removed() -> None:
    with removed_if_empty(Path.cwd()):
        pass
    assert Path.cwd().is_dir()


def test_mistakes_are_listed_once_each() -> None:
    assert str(rejected(["a: wrong", "b: wrong", "a: wrong"])) == "config rejected:\n  - a: wrong\n  - b: wrong"


def test_suggestions() -> None:
    assert suggest("q_prj", ["q_proj", "k_proj"]) == "did you mean q_proj?"
    assert suggest("zebra", ["b", "a"]) == "valid: a, b"
    assert suggest("zebra", []) == "valid: none"
