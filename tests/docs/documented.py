"""The commands that README, docs and ``--help`` show, and the files that pages tell their readers to write."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELP = ROOT / "conf" / "hydra" / "help" / "neuroada.yaml"
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / ".github").glob("*.md")),
    HELP,
)
NEEDS = (
    *("a download", "a GPU", "several GPUs", "SLURM", "vLLM", "torchao", "bitsandbytes", "trackio", "mlflow", "Docker"),
    "an account",
)
"""What a command may need that is not here; its comment says ``needs`` and some of these."""
SHELL_PROGRAMS = (
    *("make", "pip", "cd", "source", "git", "docker", "sbatch", "torchrun", "wandb", "hf", "pre-commit", "nvidia-smi"),
)
"""Programs of others."""
SHOWS = {"--help", "--hydra-help", "--version", "--explain", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}
"""Flags with which a command shows something instead of starting a run."""

_BLOCK = re.compile(r"^( *)```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"(?:^|\s+)#\s(.*)$")
_ASSIGNMENT = re.compile(r"^\w+=")


class Kind(Enum):
    """What a command is."""

    RUN = "neuroada"
    MODULE = "python -m"
    SHELL = "shell"


class UnknownCommand(ValueError):
    """A command that belongs to no kind, or a need that is not in NEEDS."""


@dataclass(frozen=True)
class Command:
    """One command of a page.

    Attributes:
        page: The page, relative to the repository.
        text: As printed, on one line and without its comment.
        comment: What its line says of it.
    """

    page: str
    text: str
    comment: str

    @property
    def needs(self) -> tuple[str, ...]:
        """What it needs that is not here, entries of NEEDS.

        Raises:
            UnknownCommand: The comment says that it needs something else.
        """
        _, found, rest = self.comment.partition("needs ")
        named = tuple(need for need in NEEDS if need in rest)
        if found and not named:
            raise UnknownCommand(f"{self.page}: '{self.comment}': needs none of {', '.join(NEEDS)}")
        return named

    @property
    def environment(self) -> dict[str, str]:
        """The variables set in front of it."""
        words = shlex.split(self.text)
        return dict(word.split("=", 1) for word in words[: self._num_assignments(words)])

    @property
    def words(self) -> list[str]:
        """Program and arguments."""
        words = shlex.split(self.text)
        return words[self._num_assignments(words) :]

    @property
    def arguments(self) -> list[str]:
        """What follows the program."""
        return self.words[{Kind.MODULE: 3}.get(self.kind, 2 if self.words[0] == "python" else 1) :]

    @property
    def kind(self) -> Kind:
        """What it is.

        Raises:
            UnknownCommand: None of the kinds.
        """
        words = self.words
        if words[0] == "neuroada" or words[:2] == ["python", "run.py"]:
            return Kind.RUN
        if words[:2] == ["python", "-m"] and words[2].startswith("neuroada."):
            return Kind.MODULE
        if words[0] in SHELL_PROGRAMS or words[:2] == ["python", "-c"]:
            return Kind.SHELL
        raise UnknownCommand(f"{self.page}: {self.text}: no kind of command that the tests know")

    @property
    def started(self) -> list[str] | None:
        """The arguments of the run that it starts, itself or through a launcher or a container; None if none."""
        words = self.words
        if self.kind is Kind.RUN:
            return None if self.shows else self.arguments
        is_launcher = words[0] in ("sbatch", "torchrun") or words[:2] == ["docker", "run"]
        found = [place for place, word in enumerate(words) if word.endswith((".sbatch", "run.py", "neuroada"))]
        return words[found[0] + 1 :] if is_launcher and found else None

    @property
    def shows(self) -> bool:
        """Whether it only shows something: help, a version, the configuration."""
        return bool(SHOWS & set(self.arguments))

    @staticmethod
    def _num_assignments(words: list[str]) -> int:
        return next((place for place, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))


def commands(page: Path) -> list[Command]:
    """The commands of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    lines = _help_lines(text) if page == HELP else _block_lines(text)
    name = page.relative_to(ROOT).as_posix()
    return [Command(name, command, comment) for command, comment in lines]


def files(page: Path) -> dict[str, str]:
    """Path and content of the files that a page tells its reader to write: blocks with a title."""
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return {title: _unindented(body, len(indent)) for indent, _, title, body in blocks if title}


def _block_lines(text: str) -> Iterator[tuple[str, str]]:
    for indent, language, title, body in _BLOCK.findall(text):
        if language not in ("bash", "sh", "shell", "console") or title:
            continue
        for line in _unindented(body, len(indent)).replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield _split(line)


def _help_lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if re.match(r"\s+(neuroada|python run\.py)( |$)", line):
            command, _, description = re.sub(r"\s{2,}", "\t", line.strip()).partition("\t")
            yield command, description


def _split(line: str) -> tuple[str, str]:
    comment = _COMMENT.search(line)
    return (line[: comment.start()], comment[1]) if comment else (line, "")


def _unindented(body: str, indent: int) -> str:
    return "\n".join(line[indent:] for line in body.splitlines()) + "\n"


def counted() -> str:
    """How many commands there are, and how many of them need what."""
    every = [command for page in PAGES for command in commands(page)]
    needing = [command for command in every if command.needs]
    is_other = [command.kind is Kind.SHELL and command.words[0] != "torchrun" for command in every]
    others = [command for command, other in zip(every, is_other, strict=True) if other and not command.needs]
    num_run = len(every) - len(needing) - len(others)
    by_need = ", ".join(f"{need} {sum(need in command.needs for command in needing)}" for need in NEEDS)
    return (
        f"{len(every)}; the slow tests run {num_run} with short settings; {len(needing)} are only composed and checked "
        f"as they need what is not here ({by_need}); {len(others)} are of other programs"
    )
