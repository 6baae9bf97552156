"""A run replaces and deletes files only in a folder that is new, or that a run of this project wrote."""

from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from hydra.utils import get_method

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.report import document
from neuroada.runs.foreign_files import begins_with, refuse_other_files
from neuroada.runs.record import RunRecord
from neuroada.runs.resuming import refuse_another_folder
from neuroada.storage.whole_files import write_whole

from ..tiny_runs import Start

Checked = Callable[..., RunConfig]
CONTENT = {"base": "x"}
NO_TESTS = document.Tests(pandas.DataFrame(), "", [])
OF_THE_USER = (
    *("logs/a.log", "checkpoints/a.ckpt", "adapter/adapter_config.json", "predictions/a.jsonl", "merged/config.json"),
    *("metrics.json", "result.json", "notes.txt", "chosen.json"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the user, with files of every name that a run writes."""
    for name in OF_THE_USER:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(f"mine: {name}")
    return tmp_path / "mine"


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def begin(folder: Path, run: RunConfig) -> None:
    """What a job does before it writes."""
    record = RunRecord(folder, run, CONTENT)
    assert record.finished() is None
    record.begin()


class TestFoldersOfTheUser:
    @pytest.mark.parametrize("resume", ["auto", "never"])
    def test_nothing_in_them_changes(self, checked: Checked, folder: Path, resume: str) -> None:
        before = files(folder)
        with pytest.raises(
            UserError, match=r"^[^\n]*mine holds files that no run wrote, such as \S+; use a hydra[^\n]*$"
        ):
            begin(folder, checked(f"resume={resume}"))
        assert files(folder) == before

    @pytest.mark.parametrize("name", OF_THE_USER)
    def test_one_file_is_enough(self, checked: Checked, tmp_path: Path, name: str) -> None:
        (tmp_path / "mine" / name).parent.mkdir(parents=True)
        (tmp_path / "mine" / name).write_text("mine")
        with pytest.raises(UserError, match="holds files that no run wrote"):
            begin(tmp_path / "mine", checked("resume=never"))

    @pytest.mark.parametrize("resume", ["auto", "never"])
    @pytest.mark.parametrize("config", ["name: a project of mine", "job: 1\nmethod: 2", "a: [", ""])
    def test_a_configuration_of_another_program_makes_no_run(
        self, checked: Checked, folder: Path, resume: str, config: str
    ) -> None:
        (folder / "config.yaml").write_text(config)
        before = files(folder)
        with pytest.raises(
            UserError, match=r"config\.yaml is (not a configuration|damaged)[^\n]*another hydra\.run\.dir"
        ):
            begin(folder, checked(f"resume={resume}"))
        assert files(folder) == before

    def test_an_interpolation_in_one_is_not_resolved(
        self, checked: Checked, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_TOKEN", "hunter2")
        text = "job: {name: finetune}\nmethod: {name: neuroada}\nseed: ${oc.env:SECRET_TOKEN}"
        (folder / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="contains the interpolation") as caught:
            begin(folder, checked())
        assert "hunter2" not in str(caught.value)


class TestFoldersOfARun:
    @pytest.mark.parametrize("name", [".hydra/config.yaml", "neuroada.log", "run.lock", "run.lock.json", "failed.json"])
    def test_what_is_written_before_a_run_begins_does_not_count(
        self, checked: Checked, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "run" / name).parent.mkdir(parents=True)
        (tmp_path / "run" / name).write_text("")
        begin(tmp_path / "run", checked())
        assert (tmp_path / "run" / "config.yaml").is_file()

    def test_empty_folders_do_not_count(self, checked: Checked, tmp_path: Path) -> None:
        (tmp_path / "run" / "logs").mkdir(parents=True)
        begin(tmp_path / "run", checked())

    def test_an_earlier_run_is_replaced_when_that_is_asked_for(self, checked: Checked, tmp_path: Path) -> None:
        begin(tmp_path, checked("seed=1"))
        (tmp_path / "logs").mkdir()
        with pytest.raises(UserError, match="contains another run"):
            begin(tmp_path, checked("seed=2"))
        begin(tmp_path, checked("seed=2", "resume=never"))
        assert not (tmp_path / "logs").exists()


class TestJobsThatWriteOneFile:
    @pytest.mark.slow_after(1)
    @pytest.mark.parametrize("job", ["generate", "contamination", "benchmark", "merge", "inspect", "combine"])
    def test_nothing_of_the_user_changes(
        self, checked: Checked, store_adapter: Callable[..., Path], tmp_path: Path, job: str
    ) -> None:
        adapter = [f"adapter={store_adapter()}"]
        needed = {"generate": ["generate.prompt=Why?"], "merge": adapter, "inspect": adapter, "combine": adapter}
        run = checked(f"job={job}", *needed.get(job, []))
        written = ("generations.jsonl", "contamination.json", "benchmark.json", "benchmark.md")
        for name in (*written, "notes.txt", "a/b.txt"):
            folder = tmp_path / name.replace("/", "-")
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text("mine")
            with pytest.raises(UserError, match=f"holds files that no run wrote, such as {name};"):
                get_method(run.job.function)(run, folder)
            assert files(folder) == {name: "mine"}

    def test_their_own_file_is_replaced(self, tmp_path: Path) -> None:
        write_whole(tmp_path / "generations.jsonl", '{"index": 0, "instruction": "Why?"}\n')
        refuse_other_files(tmp_path, own=begins_with('{"index": '))

    def test_they_may_write_into_the_folder_of_a_run(self, checked: Checked, tmp_path: Path) -> None:
        begin(tmp_path, checked())
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter" / "prompts.json").write_text("{}")
        refuse_other_files(tmp_path, own=begins_with('{"index": '))


class TestReports:
    @pytest.mark.parametrize("name", ["report.html", "report.md", "runs.csv", "figures/a.svg"])
    def test_a_file_of_the_user_is_not_replaced(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
        with pytest.raises(UserError, match=r"is no report's; use another hydra\.run\.dir, or move it away"):
            document.write_report(tmp_path, tmp_path, [], NO_TESTS)
        assert files(tmp_path) == {name: "mine"}

    def test_an_earlier_report_is_replaced(self, tmp_path: Path) -> None:
        document.write_report(tmp_path, tmp_path, [], NO_TESTS)
        document.write_report(tmp_path, tmp_path / "other", [], NO_TESTS)
        assert "other" in (tmp_path / "report.md").read_text()


class TestResume:
    def test_in_another_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match=r"^hydra\.run\.dir=\S+b: resume=\S+a continues that run in its own folder;"
        ):
            refuse_another_folder(str(tmp_path / "a"), tmp_path / "b")

    @pytest.mark.parametrize("resume", ["auto", "never", "{}", "{}/", "{}/../run"])
    def test_in_its_own_folder_it_goes_on(self, tmp_path: Path, resume: str) -> None:
        refuse_another_folder(resume.format(tmp_path / "run"), tmp_path / "run")

    @pytest.mark.slow
    def test_a_command_that_names_two_folders_changes_neither(
        self, checked: Checked, start: Start, store_run: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder = store_run()
        before = files(tmp_path)
        ended = start(f"resume={folder}", "hydra.run.dir=elsewhere")
        assert ended.returncode == 2
        assert "resume=" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
        assert files(tmp_path) == before
