"""Data sets are looked up by name."""

import pytest

from neuroada.config.errors import UserError
from neuroada.data.catalog import DATASETS, lookup
from neuroada.tasks.protocols import PROTOCOLS

COMMONSENSE = ["boolq", "piqa", "social_i_qa", "hellaswag", "winogrande", "ARC-Easy", "ARC-Challenge", "openbookqa"]
MATH = ["MultiArith", "gsm8k", "AddSub", "AQuA", "SingleEq", "SVAMP", "mawps"]


def test_all_data_sets_of_the_published_tasks_are_known() -> None:
    assert {lookup(name).protocol.name for name in [*COMMONSENSE, "commonsense_170k", "commonsense_15k"]} == {
        "commonsense"
    }
    assert {lookup(name).protocol.name for name in [*MATH, "math_10k"]} == {"math"}


def test_every_data_set_has_a_protocol_and_plausible_sums() -> None:
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        if dataset.glue is None:  # GLUE has labels, not answers that a protocol writes and reads
            assert dataset.protocol in PROTOCOLS.values()
        else:
            assert dataset.protocol is None
        assert all(remote.sha256 is None or len(remote.sha256) == 64 for remote in dataset.remote.values())


@pytest.mark.parametrize(("typed", "meant"), [("arc-easy", "ARC-Easy"), ("Boolq", "boolq"), ("math10k", "math_10k")])
def test_unknown_name_lists_near_matches_and_all_names(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"unknown data set '{typed}': did you mean {meant}.*known: .*mawps"):
        lookup(typed)


def test_name_like_no_other_still_lists_all() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'zzz': \(known: commonsense_170k"):
        lookup("zzz")
