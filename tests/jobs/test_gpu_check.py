"""``job=gpu_check``, rehearsed without a GPU: every part, one file, and a later start that does what is missing."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.gpu_check.parts import PARTS, Part
from neuroada.gpu_check.setting import Row, Setting, row
from neuroada.jobs.gpu_check import gpu_check

from ..tiny_runs import compose_run

TINY = ("job=gpu_check", "gpu_check=tiny", "trainer.accelerator=cpu")
FEW_METHODS = ("gpu_check.model_methods=[neuroada]", "gpu_check.layer_methods=[]")
QUICK = ("machine", "gradient_exact", "packed_step", "gradient_timing", "layer_timing", "adapter_switch")
"""Parts that take a second or less."""


@pytest.fixture(scope="module")
def tiny_run() -> RunConfig:
    return compose_run([*TINY, *FEW_METHODS])


def changed(run: RunConfig, **check: Any) -> RunConfig:
    return replace(run, gpu_check=replace(run.gpu_check, **check))


def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gpu_check.json").read_text())["parts"]
    return found


def test_quick_parts_are_rehearsed(tiny_run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu_check(changed(tiny_run, parts=QUICK), tmp_path / "run")
    found = content(tmp_path / "run")
    assert set(found) == set(QUICK)
    assert all(part["ended"] is None and part["rows"] for part in found.values())
    assert [row["what"] for part in found.values() for row in part["rows"] if row["right"] is False] == []
    assert {row["method"] for row in found["layer_timing"]["rows"]} == {"floor", "dense_delta"}
    assert (tmp_path / "run" / "gpu_check.md").read_text().startswith("# gpu_check")
    assert "rehearsal on a CPU" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_command_is_rehearsed(tmp_path: Path) -> None:
    gpu_check(compose_run([*TINY]), tmp_path / "run")
    found = content(tmp_path / "run")
    assert set(found) == set(PARTS)
    assert {name: part["ended"] for name, part in found.items() if part["ended"]} == {}
    assert [row["what"] for part in found.values() for row in part["rows"] if row["right"] is False] == []
    methods = [row["method"] for row in found["model_timing"]["rows"]]
    assert methods == ["floor", "neuroada", "lora-r8", "dense_delta"]


class TestStarts:
    """One start after another of the same command, with parts that only count."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []

        def counted(name: str) -> Part:
            def rows(setting: Setting) -> Iterator[Row]:
                calls.append(name)
                yield row(name, "looked at", right=True)
                if name == "breaks" and calls.count("breaks") == 1:
                    raise RuntimeError("an illegal memory access")

            return Part(rows, 60, lambda setting: "needs a model" if name == "lacks" else None)

        few = {name: counted(name) for name in ("first", "breaks", "lacks", "last")}
        for module in ("neuroada.jobs.gpu_check", "neuroada.gpu_check.series"):
            monkeypatch.setattr(f"{module}.PARTS", few)
        return calls

    def test_a_later_one_does_what_is_missing(
        self, tiny_run: RunConfig, tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        gpu_check(tiny_run, tmp_path / "run")
        found = content(tmp_path / "run")
        assert calls == ["first", "breaks", "last"]
        assert found["breaks"]["ended"] == "RuntimeError: an illegal memory access"
        assert len(found["breaks"]["rows"]) == 1
        assert "needs a model" in capsys.readouterr().out
        gpu_check(tiny_run, tmp_path / "run")
        found = content(tmp_path / "run")
        assert calls[3:] == ["breaks"]
        assert [part["ended"] for part in found.values()] == [None] * 3
        gpu_check(changed(replace(tiny_run, resume="never"), parts=["last"]), tmp_path / "run")
        assert calls[4:] == ["last"]

    def test_what_does_not_fit_into_the_minutes_is_left(
        self, tiny_run: RunConfig, tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        gpu_check(changed(tiny_run, minutes=0.5), tmp_path / "run")
        assert calls == []
        assert not (tmp_path / "run").exists()
        assert "start the same command again" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"parts": ["machin"]}, r"there is no part 'machin'; choose from machine, gradient_exact"),
        ({"layers": [[4096, 4096]]}, r"finds no GPU here; gpu_check=tiny rehearses the command on a CPU"),
    ],
)
def test_mistakes_are_one_line(tiny_run: RunConfig, tmp_path: Path, check: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        gpu_check(changed(tiny_run, **check), tmp_path / "run")


def test_a_backbone_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"^gpu_check\.model: there is no backbone 'llama_7c'; did you mean llama_"):
        compose_run([*TINY, *FEW_METHODS, "gpu_check.model=llama_7c"])
