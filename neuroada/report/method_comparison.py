"""``python -m neuroada.report.method_comparison``: runs of task=metamathqa as result files of PEFT's comparison.

PEFT's method_comparison/MetaMathQA keeps one JSON file for each experiment. These have the same fields, so that they
can lie in the same folder; a field that has no counterpart here is null.
"""

import argparse
import json
import logging
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from neuroada.config.errors import UserError
from neuroada.config.json_files import read_json
from neuroada.report.marked_pages import markdown
from neuroada.runs.adapter_origin import NEUROADA, TENSORS_FILE, WEIGHTS
from neuroada.runs.files import ADAPTER_FOLDER, LOGS_FOLDER, PROMPTS_FILE
from neuroada.runs.logged_rows import STEP, attempt, logged_rows
from neuroada.runs.stored_files import read_result
from neuroada.storage.whole_files import write_whole

logger = logging.getLogger(__name__)

EVERY = 250
"""Steps between two entries of ``metrics``, as there."""
_GIB = 2**30
_DATA = {"MetaMathQA/train": "metamath", "gsm8k_test/test": "gsm8k"}
"""Data sets of the task -> what that comparison calls them."""
_HEADS = ("experiment", "trained", "GSM8K", "max GiB", "train s", "forgetting")


def written(folders: Sequence[Path], into: Path) -> list[Path]:
    """Write a result file for each run.

    Raises:
        UserError: A folder has no finished run, or one without what such a file says; two runs have one name.
    """
    found = [comparison_result(folder) for folder in folders]
    names = [result["run_info"]["experiment_name"] for result in found]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise UserError(f"{folders[place]}: the file of another of these runs is called {name}, too; leave one out")
    into.mkdir(parents=True, exist_ok=True)
    files = [into / f"{name.replace('/', '--')}.json" for name in names]
    for file, result in zip(files, found, strict=True):
        write_whole(file, json.dumps(result, indent=2) + "\n")
    return files


def comparison_result(folder: Path) -> dict[str, Any]:
    """The content of the file of a run.

    Raises:
        UserError: See ``written``.
    """
    result = read_result(folder)
    if "timings" not in result or not (result.get("budget") or {}).get("trainable"):
        raise UserError(f"{folder}: trained nothing; give the folder of a fine-tune")
    timings = result["timings"]
    seconds = timings["fit_seconds"] + timings["evaluate_seconds"]
    return {
        "run_info": {
            "created_at": result["finished_at"],
            "total_time": seconds,
            "experiment_name": _name(result),
            "peft_branch": None,
            "peft_worktree_is_dirty": None,
            "train_config": _train_config(folder, result),
            "peft_config": _method_config(folder, result),
            "error_msg": "",
        },
        "train_info": {
            **_memory(result),
            "train_time": seconds,
            "file_size": sum(file["bytes"] for name, file in result["files"].items() if name.endswith(".safetensors")),
            "num_trainable_params": result["budget"]["trainable"],
            "num_total_params": result["budget"]["total"] + _num_added(folder, result),
            "status": "success",
            "metrics": _metrics(folder, result),
        },
        "meta_info": _origin(result),
    }


def comparison_table(folder: Path) -> str:
    """The result files of a folder, in Markdown, the best first; those of failed runs are left out.

    Raises:
        UserError: A file is none of these.
    """
    found = [read_json(file, dict[str, Any], "move it away") for file in sorted(folder.glob("*.json"))]
    try:
        rows = [_row(result) for result in found if result["train_info"]["status"] == "success"]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{folder}: a file in it is no result of PEFT's comparison ({error!r}); move it away"
        ) from error
    return markdown(_HEADS, sorted(rows, key=lambda row: row[2], reverse=True))


def _row(result: Mapping[str, Any]) -> list[str]:
    trained, last = result["train_info"], result["train_info"]["metrics"][-1]
    most, forgetting = trained["accelerator_memory_max"], last.get("forgetting")
    return [
        result["run_info"]["experiment_name"],
        f"{trained['num_trainable_params']:,}",
        f"{last['test accuracy']:.3f}",
        "-" if most is None else f"{most / _GIB:.1f}",
        f"{trained['train_time']:.0f}",
        "-" if forgetting is None else f"{forgetting:.3f}",
    ]


def _name(result: Mapping[str, Any]) -> str:
    """As there: method/model-settings; what differs from the comparison's defaults is in the name."""
    config, method = result["config"], result["method"]
    seed = "" if config["seed"] == 0 else f"-seed_{config['seed']}"
    model = Path(config["model"]["name_or_path"]).name
    return f"{method['name']}/{model}-{method['label']}-lr_{config['optimizer']['lr']:g}{seed}"


def _train_config(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    config, protocol = result["config"], _protocol(folder, result)
    optimizer = config["optimizer"]
    return {
        "model_id": config["model"]["name_or_path"],
        "dtype": result["content"].get("dtype") or config["model"]["dtype"],
        "max_seq_length": config["data"]["max_length"],
        "batch_size": config["data"]["batch_size"],
        "batch_size_eval": config["evaluation"]["batch_size"],
        "max_steps": result["timings"]["optimizer_steps"],
        "eval_steps": EVERY,
        "compile": False,
        "use_gc": config["model"]["gradient_checkpointing"],
        "query_template": protocol["prompt"].replace("{{ question }}", "{query}"),
        "seed": config["seed"],
        "grad_norm_clip": config["trainer"].get("gradient_clip_val") or 0.0,
        "optimizer_type": str(optimizer["_target_"]).rpartition(".")[2],
        "optimizer_kwargs": {key: optimizer[key] for key in ("lr", "weight_decay") if key in optimizer},
        "lr_scheduler": config["scheduler"]["name"],
        "use_amp": False,
        "autocast_adapter_dtype": True,
        "generation_kwargs": {"max_new_tokens": config["evaluation"]["max_new_tokens"] or protocol["max_new_tokens"]},
        "attn_implementation": None,
        "init_kv_cache_prefix": None,
    }


def _protocol(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """The definition of the benchmark's protocol."""
    stored: dict[str, Any] = read_json(folder / ADAPTER_FOLDER / PROMPTS_FILE, dict[str, Any], "run again")
    protocol: dict[str, Any] = stored[_benchmark(result)[0]]
    return protocol


def _method_config(folder: Path, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the adapter says of itself; there, no such thing means that all weights are trained."""
    if _is_full(result):
        return None
    config: dict[str, Any] = read_json(folder / ADAPTER_FOLDER / "adapter_config.json", dict[str, Any], "run again")
    return config


def _num_added(folder: Path, result: Mapping[str, Any]) -> int:
    """Parameters beside those of the base: none where its own weights train."""
    config = _method_config(folder, result)
    if config is None or config.get("peft_type") == WEIGHTS:
        return 0
    if config.get("peft_type") != NEUROADA:
        return int(result["budget"]["trainable"])
    # Modules and biases that train whole are the base's own.
    with safe_open(folder / ADAPTER_FOLDER / TENSORS_FILE, framework="numpy") as tensors:
        names = [name for name in tensors.keys() if name.endswith(".values")]  # noqa: SIM118 - no iterable
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)


def _is_full(result: Mapping[str, Any]) -> bool:
    return bool(result["budget"]["trainable"] == result["budget"]["total"])


def _memory(result: Mapping[str, Any]) -> dict[str, int | None]:
    """Bytes that torch's allocator held; null without a GPU."""
    held = (result.get("memory") or {}).get("reserved_gib") or {}
    places = {"reserved_avg": "mean", "max": "peak", "reserved_99th": "p99"}
    return {
        f"accelerator_memory_{name}": int(held[place] * _GIB) if place in held else None
        for name, place in places.items()
    }


def _metrics(folder: Path, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    losses, steps = _losses(folder), result["timings"]["optimizer_steps"]
    batch_size, (_, score) = result["config"]["data"]["batch_size"], _benchmark(result)
    entries: list[dict[str, Any]] = [
        {
            "step": step,
            "valid accuracy": None,
            "train loss": _mean_before(losses, step),
            "train samples": step * batch_size,
        }
        for step in range(EVERY, steps + 1, EVERY)
    ]
    last = {
        "step": steps,
        "test accuracy": score["protocol"],
        "train loss": _mean_before(losses, steps),
        "train samples": steps * batch_size,
        "train total tokens": result["timings"]["train_tokens"],
        "forgetting": (result.get("forgetting") or {}).get("difference"),
    }
    return [*entries, last]


def _benchmark(result: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the score of the one test set."""
    scores = result["metrics"]["benchmarks"]
    if len(scores) != 1:
        raise UserError(f"such a file has the score of one test set, but the run has {', '.join(scores)}")
    return next(iter(scores.items()))


def _losses(folder: Path) -> dict[int, float]:
    """Step -> training loss.

    Raises:
        UserError: The run has no CSV log.
    """
    files = sorted((folder / LOGS_FOLDER).glob("*/metrics.csv"), key=attempt)
    if len(files) > 1:
        logger.warning("%s: was resumed; its times, tokens and memory are those of the last start", folder)
    losses = {int(row[STEP]): float(row["train/loss"]) for row in _rows(files) if row.get("train/loss")}
    if not losses:
        raise UserError(f"{folder}: {LOGS_FOLDER}/ has no metrics.csv with the loss; run with logger=csv")
    return losses


def _rows(files: Sequence[Path]) -> Iterator[dict[str, str]]:
    for file in files:
        yield from logged_rows(file)


def _mean_before(losses: Mapping[int, float], step: int) -> float | None:
    """Mean of the losses that were logged in the last steps before one."""
    near = [loss for at, loss in losses.items() if step - EVERY <= at < step]
    return statistics.fmean(near) if near else None


def _origin(result: Mapping[str, Any]) -> dict[str, Any]:
    content, versions, machine = result["content"], result["versions"], result.get("machine") or {}
    commit = (result.get("git") or {}).get("commit")
    packages: dict[str, str | None] = {}
    for name in ("transformers", "peft", "datasets", "bitsandbytes", "torch", "neuroada"):
        packages |= {f"{name}-version": versions.get(name), f"{name}-commit-hash": None}
    return {
        "model_info": {"sha": content["base"].removeprefix("commit:"), "created_at": None},
        # Of the rows that were read, which may come from files of the user's.
        "dataset_info": {
            _DATA.get(name, name): {"sha": f"sha256:{digest}", "created_at": None}
            for name, digest in content["data"].items()
        },
        "package_info": {**packages, "neuroada-commit-hash": commit},
        "system_info": {
            key: machine.get(key) for key in ("system", "release", "version", "machine", "processor", "accelerator")
        },
        "pytorch_info": None,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files, and print a table of all files in their folder."""
    parser = argparse.ArgumentParser(
        "python -m neuroada.report.method_comparison",
        description="Runs as result files of PEFT's comparison of methods",
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of task=metamathqa")
    parser.add_argument("--into", type=Path, required=True, help="folder of result files, such as PEFT's own")
    given = parser.parse_args(arguments)
    try:
        written(given.runs, given.into)
        sys.stdout.write(comparison_table(given.into))
    except UserError as error:
        parser.exit(2, f"neuroada: {error}\n")


if __name__ == "__main__":
    main()
