"""Protocols from their configuration: those of ``conf/protocol``, and any other mapping of the same keys."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from neuroada.config.location import conf_folder
from neuroada.tasks import text_overlap
from neuroada.tasks.commonsense import CommonsenseJudge
from neuroada.tasks.judges import ExactMatch, Graded, Judge, Letter, NormalisedMatch, StatedNumber
from neuroada.tasks.log_likelihood import LogLikelihood
from neuroada.tasks.math import MathJudge
from neuroada.tasks.metamathqa import MetaMathJudge
from neuroada.tasks.protocol import Protocol, ProtocolError
from neuroada.tasks.template_protocol import TemplateProtocol

JUDGES: Mapping[str, Callable[..., Judge | LogLikelihood]] = {
    "commonsense": CommonsenseJudge,
    "math": MathJudge,
    "metamathqa": MetaMathJudge,
    "exact": ExactMatch,
    "normalised": NormalisedMatch,
    "letter": Letter,
    "number": StatedNumber,
    "log_likelihood": LogLikelihood,
    "f1": lambda: Graded(text_overlap.token_f1, "f1"),
    "rouge": text_overlap.rouge,
    "chrf": text_overlap.chrf,
}
"""What ``protocol.judge`` can name, alone or as ``{name: rouge, variant: rouge1}``."""

KEYS = ("prompt", "completion", "choices", "stop", "max_new_tokens", "judge", "chat")
"""Keys of a protocol; null leaves a key to the data set's own protocol."""

_DEFAULTS: Mapping[str, Any] = {"stop": [], "max_new_tokens": 128, "judge": "normalised", "chat": False}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A definition with the keys that are set in another one replaced."""
    return {**base, **{key: value for key, value in changes.items() if value is not None}}


def made(name: str, definition: Mapping[str, Any], own_judge: Judge | None = None) -> TemplateProtocol:
    """The protocol of a definition.

    Args:
        name: Its name in records.
        definition: Values of ``KEYS``; a null counts as absent.
        own_judge: The judge, where the definition names a function by ``_target_``: only the caller may import it.

    Raises:
        ProtocolError: A key is unknown, missing or has a wrong value.
    """
    for key in definition:
        if key not in KEYS:
            raise ProtocolError(f"{key}: no such key; valid: {', '.join(KEYS)}")
    values = merged(_DEFAULTS, definition)
    for key in ("prompt", "completion"):
        if not isinstance(values.get(key), str):
            raise ProtocolError(f"{key}={values.get(key)}: give a template, such as '{{{{ question }}}}'")
    limit, stop, choices = values["max_new_tokens"], values["stop"], values.get("choices")
    if type(limit) is not int or limit < 1:
        raise ProtocolError(f"max_new_tokens={limit}: must be a whole number of at least 1")
    if not (isinstance(stop, (list, tuple)) and all(isinstance(text, str) and text for text in stop)):
        raise ProtocolError(f"stop={stop}: give a list of texts")
    if not (choices is None or isinstance(choices, str) or _is_list_of_texts(choices)):
        raise ProtocolError(f"choices={choices}: give a column or expression with a list, or a list of templates")
    return TemplateProtocol(
        name=name,
        prompt=values["prompt"],
        completion=values["completion"],
        judge=own_judge or named_judge(values["judge"]),
        choices=choices,
        stop=stop,
        max_new_tokens=limit,
        chat=bool(values["chat"]),
        keys=values,
    )


def named_judge(chosen: Any) -> Judge | LogLikelihood:
    """The judge of a name, or of ``{name: <name>, <argument>: <value>}``.

    Raises:
        ProtocolError: There is no such judge, or it takes no such argument.
    """
    name, arguments = (chosen, {}) if isinstance(chosen, str) else _name_and_arguments(chosen)
    if name not in JUDGES:
        raise ProtocolError(
            f"judge={name}: no such judge; valid: {', '.join(JUDGES)}, or the _target_ of a function of your own"
        )
    maker = JUDGES[name]
    unknown = sorted(arguments.keys() - inspect.signature(maker).parameters.keys())
    if unknown:
        raise ProtocolError(f"judge.{unknown[0]}: {name} takes no such argument")
    return maker(**arguments)


def _name_and_arguments(chosen: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(chosen, Mapping) and isinstance(chosen.get("name"), str):
        return chosen["name"], {key: value for key, value in chosen.items() if key != "name"}
    raise ProtocolError(f"judge={chosen}: give a name, {{name: rouge, variant: rouge1}}, or a _target_")


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 1 and all(isinstance(text, str) for text in value)


def _shipped() -> dict[str, dict[str, Any]]:
    """The definitions in ``conf/protocol``, by name; the one without any value is the default of the group."""
    files: list[Path] = sorted((conf_folder() / "protocol").glob("*.yaml"))
    read = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    return {name: values for name, values in read.items() if any(value is not None for value in values.values())}


DEFINITIONS: Mapping[str, Mapping[str, Any]] = _shipped()
"""The definitions of the package, by name."""

PROTOCOLS: Mapping[str, Protocol] = {name: made(name, definition) for name, definition in DEFINITIONS.items()}
"""The protocols of the package, by name; to add one, add a file to ``conf/protocol``."""

COMMONSENSE, MATH = PROTOCOLS["commonsense"], PROTOCOLS["math"]
