"""Find every mistake in a composed configuration before weights are read or files are touched."""

import functools
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuroada.config.errors import UserError, rejected, shown, suggest
from neuroada.config.monitors import mistaken_monitors
from neuroada.config.optimizers import with_fused
from neuroada.config.partial_functions import called_later
from neuroada.config.quantizations import mistaken_quantization
from neuroada.config.ranks import shares_backbone
from neuroada.config.requirements import require_inside, require_name
from neuroada.config.resolution import first_line, resolved
from neuroada.config.schema import ENGINES, RunConfig
from neuroada.config.signatures import accepts, not_importable, refused_by_class, wrong_arguments, wrong_rates
from neuroada.config.values import unusable

_OPEN_GROUPS = ("method", "optimizer", "trainer", "callbacks", "logger")
_INSTANTIATED_GROUPS = ("optimizer", "trainer")
_ADAPTER_JOBS = ("evaluate", "merge", "generate", "inspect", "combine")
_WRITING_JOBS = ("generate", "benchmark")
_TRAINER_KEYS_SET_ELSEWHERE = {
    "accumulate_grad_batches": "it follows from data.batch_size, data.micro_batch_size and trainer.devices",
    "callbacks": "use the callbacks group",
    "logger": "use the logger group",
    "default_root_dir": "the run folder is used; set hydra.run.dir",
    "limit_test_batches": "use evaluation.limit",
    "fast_dev_run": "use debug=one_step",
}


def check(config: DictConfig) -> RunConfig:
    """The typed run of a composed configuration.

    Raises:
        UserError: Something is wrong; the message lists every mistake, one per line.
    """
    run = check_values(config)
    check_optimizer(run)
    return run


def check_optimizer(run: RunConfig) -> None:
    """The last part of ``check``, which imports torch.

    Raises:
        UserError: The optimizer's class rejects its arguments.
    """
    refusals = list(refused_by_class(with_fused(run.optimizer, "cpu")))
    if refusals:
        raise rejected(refusals)


def check_values(config: DictConfig) -> RunConfig:
    """The first part of ``check``, which is over in a moment.

    Raises:
        UserError: As ``check``.
    """
    values = resolved(config)
    useless = list(unusable(values))
    if useless:
        raise rejected(useless)
    mistakes = list(_unknown_keys(values, RunConfig))
    for group in _OPEN_GROUPS:
        node = _section(values, group)
        if group == "method":
            node = called_later(node)
        elif group == "optimizer":
            node = with_fused(node, "cpu")
        mistakes += wrong_arguments(node, group)
    mistakes += _rules(values)
    return _built(values, mistakes)


def typed(values: Mapping[str, Any]) -> RunConfig:
    """The run of values that were checked before, such as those passed to a rank.

    Raises:
        UserError: They do not match the schema.
    """
    return _built(values, list(_unknown_keys(values, RunConfig)))


def _built(values: Mapping[str, Any], mistakes: list[str]) -> RunConfig:
    run = _build(RunConfig, values, mistakes)
    if mistakes:
        raise rejected(mistakes)
    assert isinstance(run, RunConfig)
    return run


def _unknown_keys(values: Mapping[str, Any], schema: type, prefix: str = "") -> Iterator[str]:
    # Hydra accepts `+typo=1` even over a dataclass schema, so the keys are compared again here.
    hints = typing.get_type_hints(schema)
    for key, value in values.items():
        if key not in hints:
            yield f"{prefix}{key}: no such key; {suggest(str(key), hints)}"
        elif is_dataclass(hints[key]) and isinstance(value, Mapping):
            yield from _unknown_keys(value, typing.cast(type, hints[key]), f"{prefix}{key}.")


def _build(schema: type, values: Mapping[str, Any], mistakes: list[str], prefix: str = "") -> Any:
    """An instance of a schema, or None after adding what is wrong to ``mistakes``."""
    hints = typing.get_type_hints(schema)
    num_before = len(mistakes)
    arguments: dict[str, Any] = {}
    node = _typed_node(schema)
    for item in fields(schema):
        if item.name not in values:
            mistakes += [f"{prefix}{item.name}: has no value"] if _is_required(item) else []
            continue
        value = values[item.name]
        if is_dataclass(hints[item.name]) and isinstance(value, Mapping):
            section = typing.cast(type, hints[item.name])
            arguments[item.name] = _build(section, value, mistakes, f"{prefix}{item.name}.")
            continue
        try:
            arguments[item.name] = _converted(node, item.name, value)
        except OmegaConfBaseException as error:
            mistakes.append(f"{prefix}{item.name}={shown(value)}: {first_line(error)}")
    if len(mistakes) > num_before:
        return None
    try:
        return schema(**arguments)
    except UserError as error:
        mistakes.append(str(error))
        return None


@functools.cache
def _typed_node(schema: type) -> DictConfig:
    """The node that converts the values of a schema's fields. Making one takes longer than all conversions by it."""
    return OmegaConf.structured(schema)


def _is_required(item: "Field[Any]") -> bool:
    return item.default is MISSING or (item.default is NO_DEFAULT and item.default_factory is NO_DEFAULT)


def _converted(node: DictConfig, key: str, value: Any) -> Any:
    """The value converted to the type of its field; values from a user's own file have not been checked yet."""
    node[key] = value
    converted = node[key]
    return OmegaConf.to_container(converted) if OmegaConf.is_config(converted) else converted


def _rules(values: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes that types do not catch, in sections that may themselves be missing or mistyped."""
    for group in ("callbacks", "logger"):
        for name, node in _section(values, group).items():
            if node is not None and not (isinstance(node, Mapping) and "_target_" in node):
                yield f"{group}.{name}={shown(node)}: give a class, as in '{group}.{name}={{_target_: ...}}', or null"
    for group in _INSTANTIATED_GROUPS:
        if "_target_" not in _section(values, group):
            yield f"{group}._target_: has no value; choose with {group}=..., or give a class by its full name"
    yield from _name_rules("method.name", _section(values, "method").get("name"), "reports name the method by it")
    yield from wrong_rates(_section(values, "optimizer"))
    yield from _batch_rules(values)
    yield from _protocol_rules(values)
    yield from _trainer_rules(_section(values, "trainer"))
    if _section(values, "job").get("name") == "finetune":
        yield from mistaken_monitors(values)
    yield from _job_rules(values)
    yield from _decoding_rules(values)
    yield from _objective_rules(values)
    yield from mistaken_quantization(values)


def _objective_rules(values: Mapping[str, Any]) -> Iterator[str]:
    """A head on a backbone reads whole texts and writes none."""
    objective = _section(values, "task").get("objective")
    if objective is None:
        return
    job, data, evaluation = (_section(values, key) for key in ("job", "data", "evaluation"))
    if job.get("name") in _WRITING_JOBS:
        yield f"job={job['name']}: task.objective={objective} writes no text; use job=evaluate to score it"
    if _section(values, "inspect").get("prompts"):
        yield f"inspect.prompts: task.objective={objective} writes no text; leave it out"
    if data.get("batching") == "packed" and job.get("name") == "finetune":
        yield f"data.batching=packed: task.objective={objective} reads one text a row; use data.batching=grouped"
    if evaluation.get("forgetting") is not None:
        yield f"evaluation.forgetting={evaluation['forgetting']}: task.objective={objective} has no loss on text"
    if evaluation.get("decoding") not in (None, "auto"):
        yield f"evaluation.decoding={evaluation['decoding']}: task.objective={objective} decodes nothing; leave it out"
    for name, value in _section(values, "protocol").items():
        if value is not None:
            yield f"protocol.{name}={shown(value)}: task.objective={objective} has its own; leave it out"
    if data.get("sets"):
        yield f"data.sets: names protocols, and task.objective={objective} has its own; give paths in task.train"


def _batch_rules(values: Mapping[str, Any]) -> Iterator[str]:
    """A loss that depends on the micro-batch needs the same micro-batch size on every machine."""
    reduction = _section(values, "task").get("loss_reduction")
    trains = _section(values, "job").get("name") == "finetune"
    if trains and reduction == "micro_batch" and _section(values, "data").get("micro_batch_size") is None:
        yield "task.loss_reduction=micro_batch: the loss depends on data.micro_batch_size; give it a number"
    if reduction == "micro_batch" and _section(values, "data").get("auto_micro_batch"):
        yield "data.auto_micro_batch=true: the loss depends on the micro-batch; it needs task.loss_reduction=step"


def _protocol_rules(values: Mapping[str, Any]) -> Iterator[str]:
    """Classes and functions of the user must exist and take the given arguments."""
    for name, node in _section(_section(values, "data"), "protocols").items():
        key = f"data.protocols.{name}"
        if not isinstance(node, Mapping):
            yield f"{key}={shown(node)}: give the keys of a protocol, or a _target_, the full name of its class"
            continue
        yield from wrong_arguments(node, key) if "_target_" in node else _judge_rules(node, key)
    yield from _judge_rules(_section(values, "protocol"), "protocol")
    for group, key in (("task", "train"), ("task", "benchmarks"), ("evaluation", "benchmarks")):
        for place, entry in enumerate(_section(values, group).get(key) or ()):
            if isinstance(entry, Mapping):
                yield from _judge_rules(_section(entry, "protocol"), f"{group}.{key}[{place}].protocol")


def _judge_rules(protocol: Mapping[str, Any], key: str) -> Iterator[str]:
    """A function gets the generation and the answer later."""
    judge = protocol.get("judge")
    if isinstance(judge, Mapping):
        yield from wrong_arguments({**judge, "_partial_": True} if "_target_" in judge else judge, f"{key}.judge")


def _section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = values.get(key)
    return section if isinstance(section, Mapping) else {}


def _name_rules(key: str, value: Any, role: str) -> Iterator[str]:
    if value is None:
        yield f"{key}: has no value; {role}"
        return
    yield from _refusal(require_name, key, str(value))


def _refusal(requirement: Callable[[str, str], None], key: str, value: str) -> Iterator[str]:
    try:
        requirement(key, value)
    except UserError as error:
        yield str(error)


def _trainer_rules(trainer: Mapping[str, Any]) -> Iterator[str]:
    if str(trainer.get("precision", "32-true")) not in ("32-true", "32"):
        yield (
            f"trainer.precision={trainer['precision']}: the precision of the backbone is set by model.dtype alone "
            "(the values stay in float32); use model.dtype=bfloat16 and leave trainer.precision at 32-true"
        )
    if trainer.get("use_distributed_sampler", True):
        yield "trainer.use_distributed_sampler: must be false; the data module shards exactly, without repeating items"
    limits = {key: trainer.get(key) for key in ("max_epochs", "max_steps")}
    for key, limit in limits.items():
        if limit is not None and not (type(limit) is int and limit >= -1):
            yield f"trainer.{key}={limit}: must be a whole number, or -1 for no limit"
    if all(limit in (None, -1) for limit in limits.values()):
        yield f"trainer.max_epochs={shown(limits['max_epochs'])}: training would never end; set it or trainer.max_steps"
    for key, reason in _TRAINER_KEYS_SET_ELSEWHERE.items():
        if trainer.get(key) is not None:
            yield f"trainer.{key}={trainer[key]}: cannot be set here; {reason}"


def _job_rules(values: Mapping[str, Any]) -> Iterator[str]:
    job, adapter, trainer = _section(values, "job"), values.get("adapter"), _section(values, "trainer")
    name = job.get("name")
    mistakes = list(not_importable(job.get("function"), "job.function"))
    yield from mistakes
    if not mistakes and not accepts(job["function"], 2):
        yield f"job.function={job['function']}: is no job, which takes the run and its folder; choose with job=..."
    yield from _declared_paths_rules(job)
    yield from _folder_rules(str(job.get("folder")), values)
    if name in ("merge", "inspect") and adapter is None:
        yield f"adapter: job={name} needs one; give adapter=<run folder or adapter folder>"
    if name == "combine":
        yield from _sum_rules(adapter, _section(values, "combine").get("weights"))
    if adapter is not None and name == "benchmark":
        yield from _adapter_rules(adapter, _section(values, "benchmark"))
    elif adapter is not None and name not in _ADAPTER_JOBS:
        yield f"adapter={adapter}: job={name} takes no adapter; use job=evaluate or job=merge"
    if name == "evaluate" and isinstance(adapter, list) and len(adapter) > 1 and shares_backbone(trainer):
        yield "adapter: a sharded model cannot switch adapters; give one at a time, or use trainer=ddp"
    if name == "finetune" and _section(values, "budget").get("spread") and shares_backbone(trainer):
        yield f"budget.spread={values['budget']['spread']}: needs whole models; use trainer=ddp"
    if name in ("finetune", "contamination") and _section(values, "task").get("train") == []:
        yield "task.train=[]: give at least one training set" + (", or use job=evaluate" if name == "finetune" else "")


def _declared_paths_rules(job: Mapping[str, Any]) -> Iterator[str]:
    known = {"device", *(item.name for item in fields(RunConfig))}
    for key in ("depends_on", "but_not_on"):
        for path in job.get(key) or ():
            first = str(path).partition(".")[0]
            if first not in known:
                yield f"job.{key}: no group or key {first}; {suggest(first, known)}"


def _folder_rules(folder: str, values: Mapping[str, Any]) -> Iterator[str]:
    if "{digest}" not in folder:
        yield f"job.folder={folder}: has no {{digest}}, which distinguishes runs; add it"
    yield from _refusal(require_inside, "job.folder", folder)
    for path in re.findall(r"{([^{}]+)}", folder.replace("{digest}", "")):
        group, _, key = path.rpartition(".")
        value = _section(values, group).get(key) if group else values.get(key)
        yield from _name_rules(path, value, "it names the run folder")


def _adapter_rules(adapter: Any, benchmark: Mapping[str, Any]) -> Iterator[str]:
    if benchmark.get("scope") != "evaluation":
        yield f"adapter={adapter}: benchmark.scope={benchmark.get('scope')} takes no adapter; use scope evaluation"
    elif benchmark.get("random_weights"):
        yield f"adapter={adapter}: needs the base it was trained on; add benchmark.random_weights=false"


def _sum_rules(adapter: Any, weights: Any) -> Iterator[str]:
    if not adapter:
        yield "adapter: job=combine needs some; give adapter=[<run folder or adapter folder>,<another one>]"
    elif isinstance(adapter, list) and isinstance(weights, list) and len(weights) != len(adapter):
        yield f"combine.weights={shown(weights)}: there are {len(adapter)} adapters; give a number for each"


def _decoding_rules(values: Mapping[str, Any]) -> Iterator[str]:
    """Engines of other libraries run the whole model in one process, and vLLM reads its weights from the checkpoint."""
    decoding, trainer = _section(values, "evaluation").get("decoding"), _section(values, "trainer")
    if decoding not in ENGINES:
        return
    if shares_backbone(trainer):
        yield f"evaluation.decoding={decoding}: cannot run on a sharded model; use evaluation.decoding=auto"
    if decoding == "continuous":
        return
    if values.get("adapter") is not None or _section(values, "job").get("name") == "finetune":
        yield (
            "evaluation.decoding=vllm: scores only saved checkpoints; use job=merge adapter=<run folder>, then "
            "job=evaluate model.name_or_path=<the folder it shows>"
        )
    if trainer.get("devices") not in (1, "1", "auto") or trainer.get("num_nodes", 1) != 1:
        yield f"evaluation.decoding=vllm: runs in one process, not on trainer.devices={trainer.get('devices')}; use 1"
