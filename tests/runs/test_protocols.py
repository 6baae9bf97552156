"""The protocols of a run: the package's, and the user's, which are created and checked here."""

from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import DataConfig
from neuroada.runs.protocols import own_judge, protocols_of
from neuroada.tasks.protocol import Example, Protocol, Verdict, unanswered
from neuroada.tasks.protocols import PROTOCOLS


class Mine(Protocol):
    def __init__(self, name: str = "mine", max_new_tokens: Any = 5) -> None:
        if name == "broken":
            raise OSError("no template there")
        self.name = name
        self.max_new_tokens = max_new_tokens

    def prompt(self, example: Example) -> str:
        return example.instruction

    def completion(self, example: Example) -> str:
        return example.output

    def judge(self, example: Example, generation: str) -> Verdict:
        return unanswered()


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


def agrees(generation: str, answer: str, within: int = 0) -> bool:
    return abs(len(generation) - len(answer)) <= within


def test_a_function_of_one_s_own_judges() -> None:
    judge = own_judge({"_target_": f"{__name__}.agrees", "within": 1}, "protocol.judge")
    assert judge("four", "fives").correct
    assert not judge("four", "seven.").correct


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "no_such.module.judge"}, "protocol.judge: "),
        ({"_target_": "pathlib.PurePath"}, "protocol.judge: pathlib.PurePath cannot be called; give a function"),
    ],
)
def test_what_cannot_judge_is_refused(node: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        own_judge(node, "protocol.judge")
    assert str(caught.value).startswith(message)


def test_a_protocol_may_be_the_keys_of_the_group() -> None:
    made = protocols_of(DataConfig(protocols={"short": {"prompt": "{{ a }}?", "completion": " {{ b }}"}}))["short"]
    assert made.prompt(Example(0, "", "", "", {"a": "why"})) == "why?"


def test_a_name_of_the_package_is_taken() -> None:
    with pytest.raises(UserError, match=r"data\.protocols\.math: math is a protocol of this package"):
        protocols_of(DataConfig(protocols={"math": {"prompt": "a", "completion": "b"}}))
