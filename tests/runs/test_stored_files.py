"""Files of a run folder after accidents: one line that names file, field and way out, or a run that has failed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.runs.folder_lock import HOLDER_FILE, Holder
from neuroada.runs.listing import Status, read_runs
from neuroada.runs.stored_config import read_config
from neuroada.runs.stored_files import read_chosen, read_failure, read_outcome, read_result, read_sweep

from ..stress.bad_values import BYTES, JSON_TEXTS

READERS: dict[str, Callable[[Path], Any]] = {
    "result.json": read_result,
    "chosen.json": read_chosen,
    "failed.json": read_failure,
    "sweep.json": read_sweep,
    "config.yaml": read_config,
}
CONTENTS = {name: text.encode() for name, text in JSON_TEXTS.items()} | BYTES


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("name", READERS)
def test_damage_is_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    if content == b"{}" and name in ("result.json", "chosen.json", "failed.json"):
        assert READERS[name](tmp_path) == {}, "as an earlier version may have written it"
        return
    with pytest.raises(UserError) as caught:
        READERS[name](tmp_path)
    said = str(caught.value)
    assert str(tmp_path / name) in said
    assert ";" in said, "a way out"
    assert "\n" not in said


@pytest.mark.parametrize(
    ("result", "field"),
    [
        ({"metrics": {"macro": "high"}}, "'metrics.macro' should be a valid number"),
        ({"metrics": {"benchmarks": [1]}}, "'metrics.benchmarks' should be a valid dictionary"),
        ({"metrics": {"benchmarks": {"boolq": {"n": 10**400}}}}, "'metrics.benchmarks.boolq.n' should be less"),
        ({"budget": {"trainable": True}}, "'budget.trainable' should be a valid integer"),
        ({"config": None}, "'config' should be a valid dictionary"),
        ({"config": {"task": 5}}, "'config.task' should be a valid dictionary"),
        ({"device": ["cpu"]}, "'device' should be a valid string"),
        ({"chosen": {"micro_batch_size": 0}}, "'chosen.micro_batch_size' should be greater"),
    ],
)
def test_a_field_of_another_type_is_named(result: dict[str, Any], field: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(UserError) as caught:
        read_result(tmp_path)
    assert field in str(caught.value)
    assert str(caught.value).endswith("delete it to run again")
    assert read_outcome(tmp_path) is None


def test_files_of_earlier_and_later_versions_are_read_as_they_are(tmp_path: Path) -> None:
    result = {"metrics": {"macro": 1, "benchmarks": {"boolq": {"n": 2, "newer": [1]}}}, "newer": {"x": None}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert read_result(tmp_path) == result


def test_a_damaged_run_stops_no_other(tmp_path: Path) -> None:
    for name, text in (("a", '{"budget": 5}'), ("b", '{"finished_at": "today", "config": {}}'), ("c", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("config.yaml" if name == "c" else "result.json")).write_text(text)
    states = {run.name: (run.status, run.error) for run in read_runs(tmp_path)}
    assert states["a"][0] is states["c"][0] is Status.FAILED
    assert "a/result.json is damaged (field 'budget' should be a valid dictionary); delete it" in states["a"][1]
    assert "c/config.yaml is not a configuration" in states["c"][1]
    assert states["b"] == (Status.FINISHED, "")


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_damaged_lock_names_no_holder(content: bytes, tmp_path: Path) -> None:
    (tmp_path / HOLDER_FILE).write_bytes(content)
    assert Holder.read(tmp_path) is None
