"""The model card: metadata for the Hub, and a page for readers."""

import shlex
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from neuroada.hub.card_facts import CardFacts
from neuroada.hub.eval_results import model_index, task_of
from neuroada.hub.scores import ACCURACY, averages_of, scores_of
from neuroada.report.escaped_markdown import cell, escaped, fenced
from neuroada.runs.adapter_origin import NEUROADA, WEIGHTS

CARD_FILE = "README.md"
_TEMPLATE = "model_card.md.jinja"
_HUB = "https://huggingface.co"
_PROGRAM = "neuroada"
_BUNDLED_FOLDER = 'Path(neuroada.bundled.__file__).parent / "model"'
_LINE = 100
"""Letters of a line of the command."""


def card(facts: CardFacts) -> ModelCard:
    """The card of an adapter."""
    environment = Environment(
        loader=PackageLoader("neuroada.hub"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.finalize = escaped
    environment.filters["cell"] = cell
    page = environment.get_template(_TEMPLATE).render(_content(facts))
    return ModelCard(f"---\n{metadata(facts).to_yaml()}\n---\n\n{page}")


def metadata(facts: CardFacts) -> ModelCardData:
    """What the Hub reads: it finds the adapter by this, and lists it below its base."""
    is_peft = facts.kind not in (NEUROADA, WEIGHTS)
    base = None if facts.is_bundled else facts.base
    results = model_index(facts.run)
    data = ModelCardData(
        language=facts.push.language or None,
        license=facts.licence.identifier,
        license_name=facts.licence.name,
        license_link=facts.licence.link,
        library_name="peft" if is_peft else "neuroada",
        base_model=base,
        tags=["neuroada", *([facts.method] if facts.method != "NeuroAda" else []), *facts.push.tags],
        datasets=facts.push.datasets or None,
        pipeline_tag=task_of(facts.run),
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=facts.repo.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    if base is not None:
        data["base_model_relation"] = "adapter"
    return data


def _content(facts: CardFacts) -> dict[str, Any]:
    """What the template shows. Texts of a run are escaped there; what is marked up here is our own, or was checked."""
    scores = scores_of(facts.run)
    split = [score for score in scores if score.clean is not None]
    return {
        "facts": facts,
        "title": facts.repo.rpartition("/")[2],
        "base": _linked_base(facts),
        "scores": scores,
        "averages": list(averages_of(facts.run)),
        "is_split": bool(split),
        "num_leaked": sum(score.leaked.n for score in split if score.leaked is not None),
        "python": None if facts.kind == WEIGHTS else fenced(_python(facts), "python"),
        "shell": fenced(_shell(facts), "bash"),
        "command": fenced(_wrapped([_PROGRAM, *facts.overrides]), "bash") if facts.run.result else None,
        "prompts": [(names, *_prompt(definition)) for names, definition in facts.prompts],
        "is_accuracy": all(score.metric == ACCURACY for score in scores),
        "objective": facts.run.setting("task.objective"),
        "licence_link": _link(facts.licence.name or facts.licence.identifier, facts.licence.link),
    }


def _linked_base(facts: CardFacts) -> Markup:
    if facts.is_bundled:
        return Markup("the small model that comes with neuroada")
    if facts.base is None:
        return Markup("a model that its files do not name")
    return _link(facts.base, f"{_HUB}/{facts.base}")


def _link(text: str, address: str | None) -> Markup:
    """A link whose address was checked, or the text alone."""
    return escaped(text) if address is None else Markup(f"[{escaped(text)}]({address})")


def _python(facts: CardFacts) -> str:
    """How it is put on its base in Python."""
    place = _BUNDLED_FOLDER if facts.is_bundled else f'"{facts.base or "<its base>"}"'
    loader, options = _loader(facts)
    imports = [f"from transformers import {loader}"]
    if facts.kind == NEUROADA:
        imports = [*(["from pathlib import Path", ""] if facts.is_bundled else []), *imports, ""]
        imports += ["import neuroada.bundled" if facts.is_bundled else "import neuroada"]
        load = [f'adapter = neuroada.load(model, "{facts.repo}")  # in place; adapter.detach() gives the base back']
    else:
        imports = ["from peft import PeftModel", *imports]
        load = [f'model = PeftModel.from_pretrained(model, "{facts.repo}")']
    return "\n".join([*imports, "", f"model = {loader}.from_pretrained({place}{options})", *load])


def _loader(facts: CardFacts) -> tuple[str, str]:
    """The class of transformers that loads the base, and what it is told besides."""
    if facts.run.setting("task.objective") is None:
        return "AutoModelForCausalLM", ""
    labels = facts.run.setting("task.labels")
    return "AutoModelForSequenceClassification", f", num_labels={len(labels) if isinstance(labels, list) else 1}"


def _shell(facts: CardFacts) -> str:
    task = [word for word in facts.overrides if word.startswith("task=")]
    return "\n".join(
        [
            f'neuroada job=generate adapter={facts.repo} generate.prompt="..."  # answers of base and adapter',
            " ".join(["neuroada job=evaluate", f"adapter={facts.repo}", *task]),
            f"neuroada job=merge adapter={facts.repo}  # a plain Hugging Face checkpoint",
        ]
    )


def _wrapped(words: list[str]) -> str:
    """A command for a shell, on lines that end with a backslash where it is long."""
    lines = [words[0]]
    for word in map(shlex.quote, words[1:]):
        if len(lines[-1]) + len(word) > _LINE:
            lines[-1] += " \\"
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def _prompt(definition: Mapping[str, Any]) -> tuple[Markup, Markup, bool]:
    """Its prompt, what a model is trained to go on with, and whether both are parts of a conversation."""
    prompt, completion = (fenced(str(definition.get(key) or "")) for key in ("prompt", "completion"))
    return prompt, completion, definition.get("chat") is True
