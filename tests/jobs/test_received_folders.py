"""A run folder that came from somebody else: whatever its files say, scoring and merging run nothing of it."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.jobs.merge import merge

from ..tiny_runs import compose_run

MakeRun = Callable[..., RunConfig]
SECRET = "a-token-that-nobody-may-read"
JOBS = {"evaluate": evaluate, "merge": merge}


@pytest.fixture
def received(make_run: MakeRun, tmp_path: Path) -> Path:
    """A finished fine-tune."""
    folder = tmp_path / "received"
    finetune(make_run("trainer.max_steps=1", "evaluation.limit=1"), folder)
    return folder


def tamper(folder: Path, **sections: Any) -> None:
    """Replace sections of a stored configuration; a dotted key is written with two underscores."""
    path = folder / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    for key, value in sections.items():
        group, _, name = key.partition("__")
        if name:
            stored[group] = {**(stored[group] or {}), name: value}
        else:
            stored[group] = value
    path.write_text(yaml.safe_dump(stored))


def do(job: str, overrides: list[str], received: Path, folder: Path) -> None:
    """What ``python run.py job=... adapter=...`` does."""
    own = [item for item in overrides if not item.startswith("model.")]
    JOBS[job](compose_run([*own, f"job={job}", f"adapter={received}", "evaluation.limit=1"]), folder)


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "datasets_cache" not in path.parts}


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("job", JOBS)
def test_no_class_that_it_names_is_made(overrides: list[str], received: Path, tmp_path: Path, job: str) -> None:
    proof = tmp_path / "proof"
    makes_folder = {"_target_": "os.makedirs", "name": str(proof / "folder")}
    writes_file = {"_target_": "numpy.savetxt", "fname": str(tmp_path / "proof.txt"), "X": [1.0]}
    tamper(
        received,
        method={"name": "neuroada", "label": "neuroada-k1", **writes_file, "inner": makes_folder},
        callbacks={"one": makes_folder, "two": {"_target_": "lightning.pytorch.callbacks.Timer", "inner": writes_file}},
        logger={"one": writes_file},
        optimizer=makes_folder,
        data__protocols={"mine": makes_folder, "other": {"_target_": "x.Y", "inner": writes_file}},
    )
    before = files_in(tmp_path)
    do(job, overrides, received, tmp_path / "run")
    assert (tmp_path / "run" / ("metrics.json" if job == "evaluate" else "merged")).exists()
    new = files_in(tmp_path) - before
    assert all((tmp_path / "run") in (path, *path.parents) for path in new)
    for name in {"config.yaml", "result.json"} & {path.name for path in new}:
        text = (tmp_path / "run" / name).read_text()
        assert "makedirs" not in text
        assert "savetxt" not in text


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("sections", "typed"),
    [
        ({"task__train": "boolq"}, "task=bundled"),
        ({"task__benchmarks": "boolq"}, "protocol.judge=exact"),
        ({"protocol__judge": None}, "task=bundled"),
    ],
)
def test_no_judge_that_it_names_is_made_whatever_is_typed(
    overrides: list[str], received: Path, tmp_path: Path, sections: dict[str, Any], typed: str
) -> None:
    makes_file = {"_target_": "logging.FileHandler", "filename": str(tmp_path / "proof")}  # a class: made at once
    judged = {
        key: [{"name": name, "protocol": {"judge": makes_file}}] if name else makes_file
        for key, name in sections.items()
    }
    tamper(received, **judged)
    scored = [typed, "task.benchmarks=[bundled_choice]"] if typed.startswith("task=") else [typed]
    with suppress(UserError):
        do(
            "evaluate",
            [*(item for item in overrides if not item.startswith("task.")), *scored],
            received,
            tmp_path / "run",
        )
    assert not (tmp_path / "proof").exists()


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("job", JOBS)
def test_no_file_that_it_names_as_a_template_is_read(
    overrides: list[str], received: Path, tmp_path: Path, job: str
) -> None:
    (tmp_path / "token").write_text(SECRET)
    tamper(received, data__chat_template=str(tmp_path / "token"))
    do(job, overrides, received, tmp_path / "run")
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("job", JOBS)
def test_no_interpolation_in_its_result_is_resolved(
    overrides: list[str], received: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEIVED_SECRET", SECRET)
    file = received / "result.json"
    result = json.loads(file.read_text())
    result["content"]["dtype"] = "${oc.env:RECEIVED_SECRET}"
    file.write_text(json.dumps(result))
    own = [item for item in overrides if not item.startswith("model.")]
    assert compose_run([*own, f"job={job}", f"adapter={received}"]).model.dtype == "auto"


def test_no_benchmark_of_it_leads_out_of_the_run_folder(
    overrides: list[str], received: Path, tmp_path: Path, data_dir: Path
) -> None:
    (tmp_path / "x").mkdir()
    shutil.copy(data_dir / "boolq" / "test.json", tmp_path / "x" / "test.json")
    tamper(received, task__benchmarks=[{"name": "../x"}])
    before = files_in(tmp_path)
    with pytest.raises(UserError, match=r"name=\.\./x: use letters"):
        do("evaluate", [item for item in overrides if not item.startswith("task.bench")], received, tmp_path / "run")
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("job", JOBS)
def test_no_interpolation_in_it_is_resolved(
    overrides: list[str], received: Path, tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEIVED_SECRET", SECRET)
    tamper(received, method__label="${oc.env:RECEIVED_SECRET}", task__name="${oc.env:RECEIVED_SECRET}")
    before = files_in(tmp_path)
    with pytest.raises(UserError, match=r"^[^\n]*config\.yaml contains the interpolation [^\n]*$") as caught:
        do(job, overrides, received, tmp_path / "run")
    assert SECRET not in str(caught.value)
    assert files_in(tmp_path) == before


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("key", ["method__name", "method__label"])
def test_no_name_in_it_leads_out_of_the_outputs(
    overrides: list[str], received: Path, tmp_path: Path, job: str, key: str
) -> None:
    tamper(received, **{key: f"..{os.sep}..{os.sep}x"})
    before = files_in(tmp_path)
    with pytest.raises(UserError, match=r"method\.(name|label)=\.\./\.\./x: use letters"):
        do(job, overrides, received, tmp_path / "run")
    assert files_in(tmp_path) == before
