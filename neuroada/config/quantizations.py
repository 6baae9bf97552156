"""The ways in which a backbone can be quantised as it is loaded, their packages, and the options of each."""

import importlib.util
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from neuroada.config.errors import UserError, shown, suggest
from neuroada.config.ranks import shares_backbone
from neuroada.config.requirements import require, require_choice

OPTIONS: dict[str, dict[str, type[Any]]] = {
    "torchao_int8": {"modules_to_not_convert": list},
    "torchao_int4": {"group_size": int, "modules_to_not_convert": list},
    "bitsandbytes_int8": {"llm_int8_threshold": float, "llm_int8_skip_modules": list},
    "bitsandbytes_nf4": {
        "bnb_4bit_use_double_quant": bool,
        "bnb_4bit_compute_dtype": str,
        "llm_int8_skip_modules": list,
    },
}
"""Values of ``model.quantization``, each with the keywords of transformers' or torchao's classes that it takes."""
ALL: Collection[str] = tuple(OPTIONS)
NONE: Collection[str] = ()
_WEIGHTLESS_JOBS = ("budget", "contamination", "compare", "rescore")
"""Jobs that read no weights."""
_COMPUTE_DTYPES = ("float32", "bfloat16", "float16")


def named(quantization: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of a quantisation that was checked."""
    if isinstance(quantization, str):
        return quantization, {}
    options = dict(quantization)
    return options.pop("name"), options


def require_quantization(key: str, value: Any) -> None:
    """Raises UserError unless it is null, a name, or a mapping of a name and options."""
    if value is None:
        return
    is_one = isinstance(value, str) or (isinstance(value, Mapping) and isinstance(value.get("name"), str))
    require(is_one, f"{key}={shown(value)}: give a name ({', '.join(OPTIONS)}), or a mapping with one and its options")
    name, options = named(value)
    require_choice(f"{key}", name, tuple(OPTIONS))
    known = OPTIONS[name]
    for option, given in options.items():
        if option not in known:
            raise UserError(f"{key}.{option}: {name} has no such option; {suggest(option, known)}")
        _require_kind(f"{key}.{option}", given, known[option])


def _require_kind(key: str, value: Any, kind: type[Any]) -> None:
    if kind is list:
        is_names = isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)
        require(is_names, f"{key}={shown(value)}: give a list of names of modules, such as [lm_head]")
    elif kind is str:
        require_choice(key, str(value), _COMPUTE_DTYPES)
    elif kind is bool:
        require(isinstance(value, bool), f"{key}={shown(value)}: give true or false")
    else:
        is_number = type(value) in (int, kind) and value > 0
        require(is_number, f"{key}={shown(value)}: must be a number above 0")


def package_of(name: str) -> str:
    """The package that quantises so, which is also the name of its extra."""
    return name.partition("_")[0]


def missing_package(quantization: str | Mapping[str, Any]) -> str:
    """In one line what to install; empty if nothing is missing. Nothing is imported."""
    name, _ = named(quantization)
    absent = [one for one in (package_of(name), "accelerate") if importlib.util.find_spec(one) is None]
    if not absent:
        return ""
    return (
        f"model.quantization={name}: needs {' and '.join(absent)}; pip install 'neuroada[{package_of(name)}]', or "
        "leave it out"
    )


def refuse_missing_package(job: str, quantization: str | Mapping[str, Any] | None) -> None:
    """Raises UserError if a job that reads weights cannot quantise them here; nothing is imported."""
    if quantization is not None and job not in _WEIGHTLESS_JOBS and (missing := missing_package(quantization)):
        raise UserError(missing)


def mistaken_quantization(values: Mapping[str, Any]) -> Iterator[str]:
    """What a quantised backbone cannot be used for, in a composed configuration; one line each."""
    model, trainer, evaluation = (_section(values, key) for key in ("model", "trainer", "evaluation"))
    if values.get("allow_precision") and values.get("adapter") is None:
        yield "allow_precision=true: is about the base of a saved adapter; give adapter=..., or leave it out"
    quantization = model.get("quantization")
    try:
        require_quantization("model.quantization", quantization)
    except UserError:
        return  # said with the section it is in
    if quantization is None:
        return
    if shares_backbone(trainer):
        yield "trainer=fsdp: a quantised backbone cannot be sharded; use trainer=ddp, or model.quantization=null"
    if evaluation.get("decoding") == "vllm":
        yield "evaluation.decoding=vllm: reads its own weights; score a merged checkpoint, without model.quantization"


def _section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A group, which may itself be missing or mistyped."""
    section = values.get(key)
    return section if isinstance(section, Mapping) else {}
