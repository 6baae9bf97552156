"""``model.quantization``: names, options, packages, and what cannot be done with it."""

import importlib.util
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.quantizations import (
    missing_package,
    mistaken_quantization,
    named,
    refuse_missing_package,
    require_quantization,
)

KEY = "model.quantization"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "torchao_int8",
        "bitsandbytes_nf4",
        {"name": "torchao_int4", "group_size": 64},
        {"name": "bitsandbytes_nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16"},
        {"name": "bitsandbytes_int8", "llm_int8_threshold": 6, "llm_int8_skip_modules": ["lm_head"]},
    ],
)
def test_names_and_their_options(value: Any) -> None:
    require_quantization(KEY, value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("int8", "model.quantization=int8: choose one of torchao_int8, torchao_int4"),
        (8, "model.quantization=8: give a name (torchao_int8,"),
        ({"group_size": 64}, "give a name (torchao_int8,"),
        ({"name": "torchao_int8", "group_size": 64}, "model.quantization.group_size: torchao_int8 has no such option"),
        ({"name": "torchao_int4", "group_sise": 64}, "did you mean group_size"),
        ({"name": "torchao_int4", "group_size": 0}, "model.quantization.group_size=0: must be a number above 0"),
        ({"name": "torchao_int4", "group_size": True}, "must be a number above 0"),
        ({"name": "torchao_int4", "group_size": 1.5}, "must be a number above 0"),
        ({"name": "torchao_int8", "modules_to_not_convert": "lm_head"}, "give a list of names of modules"),
        (
            {"name": "bitsandbytes_nf4", "bnb_4bit_use_double_quant": 1},
            "use_double_quant=1: give true or false",
        ),
        ({"name": "bitsandbytes_nf4", "bnb_4bit_compute_dtype": "int8"}, "choose one of float32, bfloat16, float16"),
    ],
)
def test_a_mistake_is_one_line(value: Any, message: str) -> None:
    with pytest.raises(UserError) as refused:
        require_quantization(KEY, value)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_has_no_options_and_a_mapping_has_both() -> None:
    assert named("torchao_int8") == ("torchao_int8", {})
    assert named({"name": "torchao_int4", "group_size": 64}) == ("torchao_int4", {"group_size": 64})


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_package("bitsandbytes_nf4").startswith(
        "model.quantization=bitsandbytes_nf4: needs bitsandbytes and accelerate; pip install 'neuroada[bitsandbytes]'"
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert missing_package("bitsandbytes_nf4") == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"allow_precision": True, "adapter": None}, "allow_precision=true: is about the base of a saved adapter"),
        ({"trainer": {"strategy": {"_target_": "a.ShardedStrategy"}}}, "trainer=fsdp: a quantised backbone cannot"),
        ({"evaluation": {"decoding": "vllm"}}, "evaluation.decoding=vllm: reads its own weights"),
    ],
)
def test_what_a_quantised_backbone_cannot_do(values: dict[str, Any], message: str) -> None:
    (line,) = mistaken_quantization({"model": {"quantization": "torchao_int8"}, **values})
    assert line.startswith(message)


def test_only_a_job_that_reads_weights_needs_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refuse_missing_package("budget", "torchao_int8")
    refuse_missing_package("finetune", None)
    with pytest.raises(UserError, match="needs torchao and accelerate"):
        refuse_missing_package("evaluate", "torchao_int8")
