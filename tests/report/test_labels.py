"""Names of settings: what all share is left out, what differs is whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.report.cells import grouped
from neuroada.report.labels import without_shared_words
from neuroada.runs.listing import Run

MakeResult = Callable[..., dict[str, Any]]


def labels_of(results: list[dict[str, Any]]) -> list[str]:
    [group] = grouped([Run.finished(result, Path(str(number))) for number, result in enumerate(results)])
    return [cell.label for cell in group.cells]


def test_adapters_in_long_folders_are_told_apart_by_what_differs(made_up: MakeResult) -> None:
    """Elided in the middle, all three read the same."""
    results = [made_up("m", "t", 20, 1, {"boolq": 50}) for _ in range(3)]
    for result, digest in zip(results, ("a0d98654", "b1d98654", "c2d98654"), strict=True):
        adapter = f"outputs/finetune/smollm2_135m/commonsense_15k/neuroada-k20-{digest}/s1"
        result["config"] |= {"job": {"name": "evaluate"}, "adapter": adapter}
    assert labels_of(results) == [
        "neuroada-k20 adapter=…/neuroada-k20-a0d98654",
        "neuroada-k20 adapter=…/neuroada-k20-b1d98654",
        "neuroada-k20 adapter=…/neuroada-k20-c2d98654",
    ]


def test_a_long_text_is_one_short_line(made_up: MakeResult) -> None:
    template = "{% for message in messages %}\n{{ message.role }}: {{ message.content }}\n{% endfor %}"
    results = [made_up("m", "t", 1, 1, {"boolq": 50}) for _ in range(2)]
    for result, text in zip(results, (template, None), strict=True):
        result["config"]["data"] = {"chat_template": text}
    labels = labels_of(results)
    assert max(map(len, labels)) < 100
    assert not any("\n" in label for label in labels)
    assert labels[0] != labels[1]


def test_of_long_lists_only_the_entries_that_differ_are_named(made_up: MakeResult) -> None:
    few, many = ["q_proj", "k_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
    results = [made_up("m", "t", 1, 1, {"boolq": 50}) for _ in range(2)]
    for result, modules in zip(results, (few, many), strict=True):
        result["config"]["model"]["target_modules"] = modules
    assert labels_of(results) == ["neuroada-k1 target_modules=…", "neuroada-k1 target_modules=…,up_proj,down_proj"]


def test_lists_that_differ_only_in_their_order_are_whole(made_up: MakeResult) -> None:
    results = [made_up("m", "t", 1, 1, {"boolq": 50}) for _ in range(2)]
    for result, names in zip(results, (["boolq", "piqa", "ARC-Easy"], ["piqa", "boolq", "ARC-Easy"]), strict=True):
        result["config"]["task"]["train"] = names
    assert sorted(labels_of(results)) == [
        "neuroada-k1 train=boolq,piqa,ARC-Easy",
        "neuroada-k1 train=piqa,boolq,ARC-Easy",
    ]


def test_short_values_are_whole(made_up: MakeResult) -> None:
    results = [made_up("m", "t", 1, 1, {"boolq": 50}, lr=lr) for lr in (0.001, 0.01)]
    assert labels_of(results) == ["neuroada-k1 lr=0.001", "neuroada-k1 lr=0.01"]


@pytest.mark.parametrize(
    ("labels", "short"),
    [
        (["lora-r8 lr=0.1", "lora-r8 lr=0.2"], ["lr=0.1", "lr=0.2"]),
        (["lora-r8 a=1 limit=16", "dora-r8 a=2 limit=16"], ["lora-r8 a=1", "dora-r8 a=2"]),
        (["lora-r8", "lora-r8 lr=0.2"], ["lora-r8", "lora-r8 lr=0.2"]),
        (["lora-r8"], ["lora-r8"]),
        ([], []),
    ],
)
def test_words_that_all_names_share_are_left_out(labels: list[str], short: list[str]) -> None:
    assert without_shared_words(labels) == short
