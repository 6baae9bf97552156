"""Mistakes in a configuration that types do not catch: values that do not go together, and names that lead nowhere."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from neuroada.config.callback_rules import mistaken_callbacks
from neuroada.config.errors import UserError, shown, suggest
from neuroada.config.monitors import mistaken_monitors
from neuroada.config.quantizations import mistaken_quantization
from neuroada.config.ranks import shares_backbone
from neuroada.config.requirements import require_inside, require_name
from neuroada.config.schema import ENGINES, RunConfig
from neuroada.config.signatures import accepts, not_importable, wrong_arguments, wrong_rates

_INSTANTIATED_GROUPS = ("optimizer", "trainer")
_ADAPTER_JOBS = ("evaluate", "merge", "generate", "inspect", "combine", "serve", "push")
_WRITING_JOBS = ("generate", "benchmark")
_TRAINER_KEYS_SET_ELSEWHERE = {
    "accumulate_grad_batches": "it follows from data.batch_size, data.micro_batch_size and trainer.devices",
    "callbacks": "use the callbacks group",
    "logger": "use the logger group",
    "default_root_dir": "the run folder is used; set hydra.run.dir",
    "limit_test_batches": "use evaluation.limit",
    "overfit_batches": "train on few rows with rows in an entry of task.train",
    "fast_dev_run": "use debug=one_step",
}


def rules(values: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes that types do not catch, in sections that may themselves be missing or mistyped."""
    for group in ("callbacks", "logger"):
        for name, node in section(values, group).items():
            if node is not None and not (isinstance(node, Mapping) and "_target_" in node):
                yield f"{group}.{name}={shown(node)}: give a class, as in '{group}.{name}={{_target_: ...}}', or null"
    for group in _INSTANTIATED_GROUPS:
        if "_target_" not in section(values, group):
            yield f"{group}._target_: has no value; choose with {group}=..., or give a class by its full name"
    yield from _name_rules("method.name", section(values, "method").get("name"), "reports name the method by it")
    yield from wrong_rates(section(values, "optimizer"))
    yield from _batch_rules(values)
    yield from _protocol_rules(values)
    yield from _trainer_rules(section(values, "trainer"))
    if section(values, "job").get("name") == "finetune":
        yield from mistaken_monitors(values)
        yield from mistaken_callbacks(section(values, "callbacks"))
    yield from _job_rules(values)
    yield from _decoding_rules(values)
    yield from _objective_rules(values)
    yield from mistaken_quantization(values)


def _objective_rules(values: Mapping[str, Any]) -> Iterator[str]:
    """A head on a backbone reads whole texts and writes none."""
    objective = section(values, "task").get("objective")
    if objective is None:
        return
    job, data, evaluation = (section(values, key) for key in ("job", "data", "evaluation"))
    if job.get("name") in _WRITING_JOBS:
        yield f"job={job['name']}: task.objective={objective} writes no text; use job=evaluate to score it"
    if section(values, "inspect").get("prompts"):
        yield f"inspect.prompts: task.objective={objective} writes no text; leave it out"
    if data.get("batching") == "packed" and job.get("name") == "finetune":
        yield f"data.batching=packed: task.objective={objective} reads one text a row; use data.batching=grouped"
    if evaluation.get("forgetting") is not None:
        yield f"evaluation.forgetting={evaluation['forgetting']}: task.objective={objective} has no loss on text"
    if evaluation.get("decoding") not in (None, "auto"):
        yield f"evaluation.decoding={evaluation['decoding']}: task.objective={objective} decodes nothing; leave it out"
    for name, value in section(values, "protocol").items():
        if value is not None:
            yield f"protocol.{name}={shown(value)}: task.objective={objective} has its own; leave it out"
    if data.get("sets"):
        yield f"data.sets: names protocols, and task.objective={objective} has its own; give paths in task.train"


def _batch_rules(values: Mapping[str, Any]) -> Iterator[str]:
    """A loss that depends on the micro-batch needs the same micro-batch size on every machine."""
    reduction = section(values, "task").get("loss_reduction")
    trains = section(values, "job").get("name") == "finetune"
    if trains and reduction == "micro_batch" and section(values, "data").get("micro_batch_size") is None:
        yield "task.loss_reduction=micro_batch: the loss depends on data.micro_batch_size; give it a number"
    if reduction == "micro_batch" and section(values, "data").get("auto_micro_batch"):
        yield "data.auto_micro_batch=true: the loss depends on the micro-batch; it needs task.loss_reduction=step"


def _protocol_rules(values: Mapping[str, Any]) -> Iterator[str]:
    """Classes and functions of the user must exist and take the given arguments."""
    for name, node in section(section(values, "data"), "protocols").items():
        key = f"data.protocols.{name}"
        if not isinstance(node, Mapping):
            yield f"{key}={shown(node)}: give the keys of a protocol, or a _target_, the full name of its class"
            continue
        yield from wrong_arguments(node, key) if "_target_" in node else _judge_rules(node, key)
    yield from _judge_rules(section(values, "protocol"), "protocol")
    for group, key in (("task", "train"), ("task", "benchmarks"), ("evaluation", "benchmarks")):
        for place, entry in enumerate(section(values, group).get(key) or ()):
            if isinstance(entry, Mapping):
                yield from _judge_rules(section(entry, "protocol"), f"{group}.{key}[{place}].protocol")


def _judge_rules(protocol: Mapping[str, Any], key: str) -> Iterator[str]:
    """A function gets the generation and the answer later."""
    judge = protocol.get("judge")
    if isinstance(judge, Mapping):
        yield from wrong_arguments({**judge, "_partial_": True} if "_target_" in judge else judge, f"{key}.judge")


def section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A group of a configuration; empty if it is missing or mistyped."""
    node = values.get(key)
    return node if isinstance(node, Mapping) else {}


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
    job, adapter, trainer = section(values, "job"), values.get("adapter"), section(values, "trainer")
    name = job.get("name")
    mistakes = list(not_importable(job.get("function"), "job.function"))
    yield from mistakes
    if not mistakes and not accepts(job["function"], 2):
        yield f"job.function={job['function']}: is no job, which takes the run and its folder; choose with job=..."
    yield from _declared_paths_rules(job)
    yield from _folder_rules(str(job.get("folder")), values)
    if name in ("merge", "inspect", "push") and adapter is None:
        yield f"adapter: job={name} needs one; give adapter=<run folder or adapter folder>"
    if name == "combine":
        yield from _sum_rules(adapter, section(values, "combine").get("weights"))
    if name == "serve":
        yield from _serve_rules(values, adapter)
    if name == "push" and section(values, "push").get("repo") is None:
        yield "push.repo: has no value; give push.repo=<owner>/<name>, with push.dry_run=true, too: the card names it"
    if adapter is not None and name == "benchmark":
        yield from _adapter_rules(adapter, section(values, "benchmark"))
    elif adapter is not None and name not in _ADAPTER_JOBS:
        yield f"adapter={adapter}: job={name} takes no adapter; use job=evaluate or job=merge"
    if name == "evaluate" and isinstance(adapter, list) and len(adapter) > 1 and shares_backbone(trainer):
        yield "adapter: a sharded model cannot switch adapters; give one at a time, or use trainer=ddp"
    if name == "finetune" and section(values, "budget").get("spread") and shares_backbone(trainer):
        yield f"budget.spread={values['budget']['spread']}: needs whole models; use trainer=ddp"
    if name in ("finetune", "contamination") and section(values, "task").get("train") == []:
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
        value = section(values, group).get(key) if group else values.get(key)
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


def _serve_rules(values: Mapping[str, Any], adapter: Any) -> Iterator[str]:
    """vLLM loads the checkpoint itself, in an environment that knows none of this project's ways to load one."""
    if not adapter:
        yield "adapter: job=serve needs some; give adapter=[<run folder or adapter folder>,<another one>]"
    names = section(values, "serve").get("names")
    if isinstance(adapter, list) and isinstance(names, list) and len(names) != len(adapter):
        yield f"serve.names={shown(names)}: there are {len(adapter)} adapters; give a name for each"
    model = section(values, "model")
    if model.get("quantization") is not None:
        yield f"model.quantization={shown(model['quantization'])}: job=serve writes into weights; serve the plain base"
    if str(model.get("name_or_path")).endswith(".gguf"):
        yield f"model.name_or_path={model['name_or_path']}: job=serve takes no GGUF file; serve the plain base"
    if section(values, "task").get("objective") is not None:
        yield f"job=serve: task.objective={values['task']['objective']} writes no text; use job=evaluate to score it"


def _decoding_rules(values: Mapping[str, Any]) -> Iterator[str]:
    """Engines of other libraries run the whole model in one process, and vLLM reads its weights from the checkpoint."""
    decoding, trainer = section(values, "evaluation").get("decoding"), section(values, "trainer")
    if decoding not in ENGINES:
        return
    if shares_backbone(trainer):
        yield f"evaluation.decoding={decoding}: cannot run on a sharded model; use evaluation.decoding=auto"
    if decoding == "continuous":
        return
    if values.get("adapter") is not None or section(values, "job").get("name") == "finetune":
        yield (
            "evaluation.decoding=vllm: scores only saved checkpoints; use job=merge adapter=<run folder>, then "
            "job=evaluate model.name_or_path=<the folder it shows>"
        )
    if trainer.get("devices") not in (1, "1", "auto") or trainer.get("num_nodes", 1) != 1:
        yield f"evaluation.decoding=vllm: runs in one process, not on trainer.devices={trainer.get('devices')}; use 1"
