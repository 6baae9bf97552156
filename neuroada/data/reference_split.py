"""Split one upstream file into train and validation, row for row as the reference did.

The reference shuffled the rows with ``random.seed(42)`` and cut at 70 %. Undoing that shuffle on its published parts
gives a file whose rows are grouped by data set, and redoing it reproduces its parts byte for byte.
"""

import hashlib
import json
import logging
import random
from pathlib import Path
from typing import Any

from neuroada.config.errors import UserError
from neuroada.data.catalog import HeldOutSplit
from neuroada.storage.whole_files import replace

logger = logging.getLogger(__name__)


def split_source(source: Path, held_out: HeldOutSplit) -> None:
    """Write the parts and ``split.json`` next to the source, then delete it; raises UserError on foreign parts."""
    content = source.read_bytes()
    parts = divide(json.loads(content), held_out)
    texts = {split: json.dumps(rows, indent=4, ensure_ascii=False).encode() for split, rows in parts.items()}
    for split, text in texts.items():
        _refuse_foreign_part(source.with_name(f"{split}.json"), text)
    sums = {split: hashlib.sha256(text).hexdigest() for split, text in texts.items()}
    if sums != held_out.sha256:
        logger.warning("%s: the split differs from the reference's, because the source differs", source.parent)
    record = {
        "source": held_out.source.path,
        "source_sha256": hashlib.sha256(content).hexdigest(),
        "seed": held_out.seed,
        "num_rows": {split: len(rows) for split, rows in parts.items()},
        "sha256": sums,
        "same_as_reference": sums == held_out.sha256,
    }
    texts["split"] = json.dumps(record, indent=4).encode()
    for name, text in texts.items():
        _write(source.with_name(f"{name}.json"), text)
    source.unlink()


def divide(rows: list[Any], held_out: HeldOutSplit) -> dict[str, list[Any]]:
    """Shuffle with the seed and cut: the same rows in the same order on every machine and Python version."""
    shuffled = list(rows)
    random.Random(held_out.seed).shuffle(shuffled)
    cut = int(len(shuffled) * held_out.train_share)
    return {"train": shuffled[:cut], "validation": shuffled[cut:]}


def _refuse_foreign_part(path: Path, text: bytes) -> None:
    """An existing part must be from this split, otherwise train and validation would overlap."""
    if path.exists() and path.read_bytes() != text:
        raise UserError(
            f"{path}: is not from the reference's split, so the other part would overlap with it; "
            "provide both parts or move this one away"
        )


def _write(path: Path, text: bytes) -> None:
    partial = path.with_name(f"{path.name}.incomplete")
    partial.write_bytes(text)
    replace(partial, path)
