"""GLUE's own files, the division of its development sets, and its tasks."""

from pathlib import Path

import pytest
import yaml

from neuroada.config.errors import UserError
from neuroada.data.entries import Sources
from neuroada.data.glue import GLUE, Glue
from neuroada.tasks.label_protocol import label_protocol

from ..labelled_runs import write_lines
from ..quick_compose import CONF

# Header (None for none) and one line of train.tsv of each set, as GLUE distributes them, and the row that it is.
FILES = {
    "cola": (None, "gj04\t0\t*\tThey drank the pub.", {"sentence": "They drank the pub.", "label": "0"}),
    "sst2": ("sentence\tlabel", 'a "fine" film \t1', {"sentence": 'a "fine" film ', "label": "1"}),
    "mrpc": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        '1\t7\t8\tHe said "yes .\tHe agreed .',
        {"sentence1": 'He said "yes .', "sentence2": "He agreed .", "label": "1"},
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "1\t2\t3\tWhy?\tHow?\t0",
        {"question1": "Why?", "question2": "How?", "label": "0"},
    ),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tnews\tf\t2012\t1\tnone\tnone\tA man runs.\tA man is running.\t4.800",
        {"sentence1": "A man runs.", "sentence2": "A man is running.", "label": "4.800"},
    ),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tp1\tp2\tp3\tp4\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t1n\tfiction\t-\t-\t-\t-\tIt rains.\tIt is wet.\tneutral\tentailment",
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"},
    ),
    "qnli": (
        "index\tquestion\tsentence\tlabel",
        "0\tWho?\tIt was he.\tentailment",
        {"question": "Who?", "sentence": "It was he.", "label": "entailment"},
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel",
        "0\tIt rains.\tIt is dry.\tnot_entailment",
        {"sentence1": "It rains.", "sentence2": "It is dry.", "label": "not_entailment"},
    ),
}


def write_tsv(path: Path, header: str | None, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in [*([header] if header else []), *lines]))


def task(name: str) -> dict[str, list[str]]:
    values: dict[str, dict[str, list[str]]] = yaml.safe_load((CONF / "task" / f"{name}.yaml").read_text())
    return values["task"]


@pytest.mark.parametrize("name", FILES)
def test_the_distribution_s_files_are_read_and_their_labels_are_the_task_s(name: str, tmp_path: Path) -> None:
    header, line, row = FILES[name]
    write_tsv(tmp_path / GLUE[name].folder / "train.tsv", header, [line])
    given = task(name)
    labelled = label_protocol(*(given[key] for key in ("objective", "labels", "metrics")))  # type: ignore[arg-type]
    (split,) = Sources.of(tmp_path, labelled=labelled).splits([name], "train", "task.train")
    assert split.rows == [row]
    (example,) = split.examples()
    assert labelled is not None
    assert labelled.target(example.answer) in (0, 1, 4.8)


def test_a_file_with_the_columns_of_the_hub_is_read_from_a_folder_of_the_name(tmp_path: Path) -> None:
    row = {"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}
    (tmp_path / "mrpc").mkdir()
    write_lines(tmp_path / "mrpc" / "train.jsonl", [row])
    path = GLUE["mrpc"].file("mrpc", tmp_path, "train")
    assert GLUE["mrpc"].rows(path, "train") == [row]


@pytest.mark.parametrize(("size", "picked"), [(9, 4), (872, 436), (5000, 2500), (5001, 1000), (40430, 1000)])
def test_the_development_set_is_divided_without_overlap_or_loss(size: int, picked: int) -> None:
    rows = [{"label": number} for number in range(size)]
    parts = [GLUE["rte"].part(rows, split) for split in ("validation", "test")]
    assert len(parts[0]) == picked
    assert sorted(row["label"] for part in parts for row in part) == list(range(size))
    assert parts[1] == GLUE["rte"].part(rows, "test")  # no seed of a run has a say


def test_the_mismatched_set_of_mnli_is_reported_whole() -> None:
    rows = [{"label": number} for number in range(5)]
    assert GLUE["mnli_mismatched"].part(rows, "test") == rows


def test_lines_that_are_cut_off_and_rows_without_agreement_are_left_out(tmp_path: Path) -> None:
    header, line, row = FILES["mnli"]
    odd = line.replace("\tentailment", "\t-")
    write_tsv(tmp_path / "MNLI" / "train.tsv", header, [line, odd, "3\tcut"])
    assert GLUE["mnli"].rows(tmp_path / "MNLI" / "train.tsv", "train") == [row]


def test_another_file_is_refused_by_its_columns(tmp_path: Path) -> None:
    write_tsv(tmp_path / "train.tsv", "a\tb", ["1\t2"])
    with pytest.raises(UserError, match=r"train\.tsv: has no column sentence1 \(there are a, b\)"):
        Glue("RTE", "rte", {"sentence1": "sentence1"}).rows(tmp_path / "train.tsv", "train")
