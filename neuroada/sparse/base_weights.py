"""Recognise the base of an adapter by the weights below its bypasses: the same, in another precision, or another.

Shapes: O neurons (= out_features), K trained inputs per neuron.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from neuroada.sparse.errors import AdapterError

SAMPLED = 256
"""Base entries of each layer that a file holds."""
_MOST_DIFFERENCE = 0.5
"""Share by which entries of one base may differ between precisions; those of another model differ by about 1.4."""
_ALIKE = {"float32", "bfloat16", "float64"}
"""Precisions in which one base has the same fingerprint."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Base:
    """What an adapter file says of the model that it was trained on.

    Attributes:
        name: Hub id or folder, if it had a name.
        revision: Hub commit, if known.
        fingerprint: Hash of the base entries under the bypasses, see ``fingerprint``.
        fingerprint_float16: The same of the entries rounded to fp16, by which an fp16 load of the base is recognised;
            None in files of versions that did not write it.
        precision: What the weights were stored as, as ``linear_layers.precisions`` says; None in older files.
        sample: Some bf16 base entries of each layer, see ``sample_of``: another precision of the base is told from
            another base by them. Empty in older files.
    """

    name: str | None
    revision: str | None
    fingerprint: str
    fingerprint_float16: str | None = None
    precision: str | None = None
    sample: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Mapping[str, Tensor], name: str | None, revision: str | None, precision: str) -> "Base":
        """Of (out_features, k) base entries by layer name."""
        sample = {layer: sample_of(part) for layer, part in entries.items()}
        return cls(name, revision, fingerprint(entries), fingerprint(entries, torch.float16), precision, sample)

    def check(
        self, entries: Mapping[str, Tensor], directory: Path, precision: str, allow_precision: bool = False
    ) -> None:
        """Raise AdapterError unless the (out_features, k) entries under the bypasses are those of this base.

        Args:
            directory: The adapter's, for messages.
            precision: What the weights are stored as here, as ``linear_layers.precisions`` says.
            allow_precision: Whether those of the same base in another precision will do; a warning says by how much
                they differ.
        """
        if is_base(entries, self.fingerprint, self.fingerprint_float16):
            return
        difference = difference_of(entries, self.sample)
        if difference is None or difference > _MOST_DIFFERENCE or not self._is_other_precision(precision):
            raise AdapterError(
                f"{directory}: the weights of this model are not those the adapter was trained on ({self}, revision "
                f"{self.revision or 'unknown'}); {way_to_base(entries)}"
            )
        differ = (
            f"{directory}: trained on {self} in {self.precision}, but the base is {precision} here; the weights below "
            f"the adapter differ by {difference:.2%}"
        )
        if not allow_precision:
            raise AdapterError(f"{differ}; allow it with allow_precision=true, or load the base as it was")
        logger.warning("%s (allow_precision=true)", differ)

    def _is_other_precision(self, precision: str) -> bool:
        """Whether the same base could have other entries here: not where float32 and bfloat16 round to the same.

        Weights quantised on another device may differ in their last bits, so the same quantisation counts as another.
        """
        return self.precision is not None and not {self.precision, precision} <= _ALIKE

    def __str__(self) -> str:
        return self.name or "an unnamed model"


def fingerprint(entries: Mapping[str, Tensor], dtype: torch.dtype = torch.bfloat16) -> str:
    """SHA-256 of named (out_features, k) base entries, rounded to bf16 so that fp32 and bf16 loads agree.

    An fp16 load agrees with neither, as it is rounded twice; it is recognised by the hash of the fp16 entries.
    """
    digest = hashlib.sha256()
    for name in sorted(entries):
        digest.update(name.encode())
        rounded = entries[name].detach().to(dtype).cpu().contiguous()
        digest.update(rounded.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def is_base(entries: Mapping[str, Tensor], stored: str, stored_float16: str | None) -> bool:
    """Whether base entries have the stored fingerprints."""
    if fingerprint(entries) == stored:
        return True
    in_float16 = any(part.dtype == torch.float16 for part in entries.values())
    return in_float16 and stored_float16 == fingerprint(entries, torch.float16)


def sample_of(entries_OK: Tensor) -> Tensor:
    """(at most ``SAMPLED``,) bf16 entries, evenly spaced over the rows."""
    flat = entries_OK.detach().flatten()
    count = min(SAMPLED, len(flat))
    places = torch.arange(count, device=flat.device) * len(flat) // count
    return flat[places].to(torch.bfloat16)


def difference_of(entries: Mapping[str, Tensor], samples: Mapping[str, Tensor]) -> float | None:
    """Norm of the difference between base entries and the stored sample of them, as a share of the sample's.

    Both are rounded to bf16. None if there is no sample of these entries.
    """
    if not samples or samples.keys() != entries.keys():
        return None
    here = torch.cat([sample_of(entries[name]).cpu().double() for name in samples])
    stored = torch.cat([sample.double() for sample in samples.values()])
    if here.shape != stored.shape:
        return None
    return float(torch.linalg.vector_norm(here - stored) / torch.linalg.vector_norm(stored))


def way_to_base(entries: Mapping[str, Tensor]) -> str:
    """What to do if entries have other fingerprints."""
    if any(part.dtype == torch.float16 for part in entries.values()):
        return (
            "load that base model; if this is it, the adapter was trained in another precision, from which float16 "
            "differs: load the base in bfloat16 or float32"
        )
    return "load that base model"
