"""The protocols of a run: the package's, and the user's, which are created and checked here."""

from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import DataConfig
from neuroada.runs.protocols import protocols_of
from neuroada.tasks.commonsense import Commonsense
from neuroada.tasks.protocols import PROTOCOLS


class Mine(Commonsense):
    def __init__(self, name: str = "mine", max_new_tokens: Any = 5) -> None:
        if name == "broken":
            raise OSError("no template there")
        self.name = name
        self.max_new_tokens = max_new_tokens


def own(target: str = f"{__name__}.Mine", **arguments: Any) -> DataConfig:
    return DataConfig(protocols={"mine": {"_target_": target, **arguments}})


def test_own_protocols_stand_beside_those_of_the_package() -> None:
    assert protocols_of(DataConfig()) == PROTOCOLS
    protocols = protocols_of(own(max_new_tokens=7))
    assert list(protocols) == [*PROTOCOLS, "mine"]
    assert protocols["mine"].max_new_tokens == 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (own("builtins.dict"), "builtins.dict is not a protocol; derive it from neuroada.tasks.protocol.Protocol"),
        (own("neuroada.tasks.protocol.Protocol"), "Can't instantiate abstract class Protocol"),
        (own(name="other"), "the protocol's own name is other; give both the same name"),
        (own(name="broken"), "no template there"),
        (own(max_new_tokens=0), "its max_new_tokens is 0; it must be a whole number of at least 1"),
        (own(max_new_tokens="5"), "its max_new_tokens is 5; it must be a whole number of at least 1"),
    ],
)
def test_what_is_no_protocol_of_that_name_is_refused(data: DataConfig, message: str) -> None:
    with pytest.raises(UserError) as caught:
        protocols_of(data)
    assert str(caught.value).startswith(f"data.protocols.mine: {message}")
    assert "\n" not in str(caught.value)
