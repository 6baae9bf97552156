"""The commands that are attacked, in a folder with a backbone and data, and what they leave."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

_MODEL = ("model.name_or_path=backbone", "model.name=tiny", "data.dir=data", "trainer.accelerator=cpu")
_SCORED = (
    *("task.name=small", "task.train=[boolq]", "task.benchmarks=[boolq,AddSub]", "evaluation.forgetting=null"),
    *("evaluation.max_new_tokens=6", "evaluation.batch_size=4"),
)
_TRAINED = (
    *("data.batch_size=4", "data.micro_batch_size=2", "trainer.max_epochs=2", "optimizer.lr=0.01"),
    *("validation=held_out", "validation.num_rows=2", "validation.every_n_steps=2"),
    "callbacks.checkpoint.every_n_train_steps=2",
)
FINETUNE = (*_MODEL, *_SCORED, *_TRAINED, "hydra.run.dir=outputs/tuned")
EVALUATE = ("job=evaluate", "adapter=outputs/tuned", *_MODEL, *_SCORED, "hydra.run.dir=outputs/scored")
MERGE = ("job=merge", "adapter=outputs/tuned", *_MODEL)
RESCORE = ("job=rescore", "runs=outputs")
COMPARE = ("job=compare", "runs=outputs")
TWO_RANKS = (*FINETUNE, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
SWEEP = ("-m", *_MODEL, *_SCORED, *_TRAINED, "budget.top_k=1,2")


def finished(folder: Path) -> dict[str, str]:
    """File -> hash of what the runs in a folder have produced; times and dates are left out."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(_products(folder))}


def _products(folder: Path) -> Iterator[Path]:
    for place in ("adapter", "predictions", "merged"):
        yield from (path for path in folder.glob(f"outputs/**/{place}/**/*") if path.is_file())
    for name in ("metrics.json", "result.json", "report.md"):
        yield from folder.glob(f"outputs/**/{name}")


def _content(path: Path) -> str:
    if path.name == "result.json":
        return json.dumps(_lasting(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True)
    if path.name == "report.md":
        return "a report"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lasting(result: dict[str, object]) -> dict[str, object]:
    """What of a result does not depend on when and how fast it was made."""
    return {key: result.get(key) for key in ("budget", "chosen", "training_rows", "metrics", "adapter")}
