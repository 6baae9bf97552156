"""Every command of README, docs and ``--help`` works as printed.

Each is composed and checked as far as the run's first read. With short settings, the first hour is run, and by the slow
tests every page; but not a command whose comment says what it needs.
"""

import importlib.util
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from .documented import NEEDS, PAGES, ROOT, Command, Kind, UnknownCommand, commands, files
from .placeholders import FinishedRuns, Workspace
from .walking import SHORT, composed, failure_apart, failure_of, is_sweep, shortened

FIRST_HOUR = ROOT / "docs" / "first_hour.md"
SHELL_FOLDERS = {".venv", "neuroada"}
SHELL_FREE = (
    "git clone",
    "git tag",
    "git push",
    "pre-commit install",
    "wandb login",
    "hf auth",
    "nvidia-smi",
    "python -c",
)
"""Commands of other programs, of which nothing here can be checked."""
WITH_COMMANDS = [page for page in PAGES if commands(page)]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRuns:
    """Runs that placeholders stand for."""
    return FinishedRuns(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def workspace(tmp_path: Path, finished: FinishedRuns) -> Workspace:
    """An empty working folder."""
    return Workspace(tmp_path, finished)


def written(page: Path, folder: Path) -> None:
    """Write the files that a page tells its reader to write."""
    for name, content in files(page).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def arguments(command: Command, workspace: Workspace) -> list[str]:
    """The arguments of a command with real values for its placeholders."""
    return filled(command, workspace).arguments


def filled(command: Command, workspace: Workspace) -> Command:
    """A command with real values for its placeholders."""
    return replace(command, text=workspace.filled(command.text))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


FIRST_READ = {"README.md"}
COMPOSED = [
    page if name_of(page) in FIRST_READ else pytest.param(page, marks=pytest.mark.slow) for page in WITH_COMMANDS
]
"""Composing takes a quarter of a second a command: of most pages it is a slow test."""


def test_every_page_with_a_bash_block_is_walked() -> None:
    assert {"README.md", "docs/methods.md", "docs/first_hour.md", name_of(PAGES[-1])} <= {*map(name_of, WITH_COMMANDS)}
    assert sum(len(commands(page)) for page in PAGES) > 100


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_every_command_is_of_a_known_kind(page: Path) -> None:
    for command in commands(page):
        assert command.kind in Kind
        assert set(command.needs) <= set(NEEDS)


@pytest.mark.parametrize(
    ("line", "comment"), [("frobnicate --all", ""), ("python train.py", ""), ("neuroada", "needs a unicorn")]
)
def test_another_program_or_need_is_refused(line: str, comment: str) -> None:
    command = Command("page", line, comment)
    with pytest.raises(UnknownCommand):
        _ = command.kind, command.needs


@pytest.mark.parametrize("page", COMPOSED, ids=name_of)
def test_runs_compose_and_pass_the_checks(page: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    written(page, workspace.folder)
    monkeypatch.syspath_prepend(str(workspace.folder / "packages"))
    for command in commands(page):
        started = filled(command, workspace).started
        try:
            assert started is None or composed(started, workspace.folder)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{command.page}: {command.text}: {error}")


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_other_commands_name_what_exists(page: Path) -> None:
    for command in commands(page):
        if command.kind is Kind.MODULE:
            assert importlib.util.find_spec(command.words[2]) is not None, command
        if command.kind is Kind.SHELL:
            assert is_known_to_exist(command.text, command.words), command


def is_known_to_exist(text: str, words: list[str]) -> bool:
    """Whether the target, extra, folder or file that a shell command names exists."""
    program, *rest = words
    if text.startswith(SHELL_FREE):
        return True
    if program == "make":
        return all(
            re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for word in rest if "=" not in word
        )
    if program == "pip":
        extras = set(",".join(re.findall(r"\[([\w,]+)\]", text)).split(",")) - {""}
        return extras <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    if program in ("cd", "source"):
        return Path(rest[0]).parts[0] in SHELL_FOLDERS
    named = [word for word in rest if word.startswith("docs/") or word == "run.py"]
    return program in ("docker", "sbatch", "torchrun", "srun") and all((ROOT / word).exists() for word in named)


@pytest.mark.slow
def test_the_first_hour_works_as_printed(workspace: Workspace) -> None:
    written(FIRST_HOUR, workspace.folder)
    for command in commands(FIRST_HOUR):
        if command.kind is Kind.RUN and not (command.needs or command.shows or is_sweep(command.arguments)):
            words = [*shortened(arguments(command, workspace)), "~callbacks.progress_bar"]
            assert failure_of(words, workspace.folder) is None, command


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_every_command_that_can_run_here_exits_with_0(page: Path, workspace: Workspace) -> None:
    written(page, workspace.folder)
    for folder in ("docs", "sweeps"):  # some commands read them or write into a page
        shutil.copytree(ROOT / folder, workspace.folder / folder)
    workspace.filled("<run folder>")  # some report on finished runs
    for command in commands(page):
        if not command.needs:
            failure = failure_in(workspace, command)
            assert failure is None, f"{command.text}: {failure}"


def failure_in(workspace: Workspace, command: Command) -> object:
    """Run a command with short settings; what it ends with if it fails, and None for a program of others."""
    words = arguments(command, workspace)
    if command.kind is Kind.RUN:
        words = words if command.shows else shortened(words)
        return failure_of(words, workspace.folder, command.environment)
    if command.kind is Kind.MODULE:
        return failure_apart([*command.words[:3], *words], workspace.folder)
    if command.words[0] == "torchrun":
        words = [str(ROOT / word) if word == "run.py" else word for word in words]
        return failure_apart(["python", "-m", "torch.distributed.run", *words, *SHORT], workspace.folder)
    return None
