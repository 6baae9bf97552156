"""Names and colours in figures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from neuroada.report.cells import grouped
from neuroada.report.drawing import looks, short_count, wrapped
from neuroada.runs.listing import read_runs

LONG = [
    "neuroada-k20 adapter=outputs/finetune/smollm2_135m/commonsense_15k/neuroada-k20-a0d98654",
    "lora-r8 target_modules=q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
    "base benchmarks=boolq,piqa,hellaswag limit=16",
]


def test_a_short_name_stays_in_one_line() -> None:
    assert wrapped("neuroada-k20 lr=0.001") == "neuroada-k20 lr=0.001"


@pytest.mark.parametrize("name", LONG)
def test_a_long_name_goes_on_in_another_line_and_loses_nothing(name: str) -> None:
    rows = wrapped(name).splitlines()
    assert len(rows) > 1
    assert max(map(len, rows)) <= 36
    assert "".join(rows).replace(" ", "") == name.replace(" ", "")


def test_every_method_has_a_look_of_its_own(store_methods: Callable[..., Path]) -> None:
    methods = {f"method{number:02}": f"method{number:02}-r1" for number in range(25)}
    [group] = grouped(read_runs(store_methods(methods=methods, seeds=[1])))
    found = looks(group)
    assert list(found) == list(methods)
    assert len(set(found.values())) == 25
    assert len({look.colour for look in list(found.values())[:10]}) == 10


@pytest.mark.parametrize(("count", "text"), [(960, "960"), (24_320, "24.3K"), (27_197_440, "27.2M")])
def test_counts_are_shortened(count: int, text: str) -> None:
    assert short_count(count) == text
