"""What a model card says of an adapter, read from its folder and the run that made it."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open

from neuroada.config.errors import UserError
from neuroada.config.job_schema import PushConfig
from neuroada.hub.licences import Licence
from neuroada.hub.plain_names import plain_name, plain_setting
from neuroada.hub.shared_files import shared_prompts
from neuroada.runs.adapter_origin import NEUROADA, TENSORS_FILE, AdapterOrigin
from neuroada.runs.files import ADAPTER_FOLDER, CONFIG_FILE, RESULT_FILE
from neuroada.runs.listing import Run
from neuroada.runs.recorded_files import changed_files, refuse_changed_adapter
from neuroada.runs.stored_config import plain, read_config
from neuroada.runs.stored_files import read_result

_NO_VALUES = (".columns", ".rows", ".base_sample")
"""Ends of the names of tensors that say where values are, or what the base is."""
_VERSIONS = ("python", "torch", "transformers", "lightning", "peft")


@dataclass(frozen=True)
class CardFacts:
    """One adapter.

    Attributes:
        push: Where it goes, and what the user says of it.
        origin: Its folder and header.
        run: The finished run that made it; without results if there is none.
        base: Name of its base that others can load; None if the files name none.
        is_bundled: Whether that is the model that comes with this package.
        licence: Its licence.
        overrides: What is typed to make it again; empty if no run is known.
    """

    push: PushConfig
    origin: AdapterOrigin
    run: Run
    base: str | None
    is_bundled: bool
    licence: Licence
    overrides: tuple[str, ...] = ()

    @property
    def repo(self) -> str:
        """``<owner>/<name>``."""
        assert self.push.repo is not None, "checked with the configuration"
        return self.push.repo

    @property
    def kind(self) -> str:
        """``peft_type`` of the files."""
        return str(self.origin.header["peft_type"])

    @property
    def method(self) -> str:
        """Its method, as a page calls it."""
        name = plain_name(str(self.origin.method["name"]))
        return "NeuroAda" if self.kind == NEUROADA else name

    @cached_property
    def prompts(self) -> list[tuple[list[str], Mapping[str, Any]]]:
        """Names of data sets, and the definition of their prompts; those with the same one together."""
        together: list[tuple[list[str], Mapping[str, Any]]] = []
        for name, definition in shared_prompts(self.origin.directory).items():
            same = [names for names, other in together if other == definition]
            if same:
                same[0].append(name)
            else:
                together.append(([name], definition))
        return together

    @cached_property
    def sha256(self) -> str:
        """Of the file with the values."""
        with (self.origin.directory / TENSORS_FILE).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def data(self) -> list[tuple[str, str, str]]:
        """Name, part and SHA-256 of each data set that the run read."""
        found = self.run.outcome("content.data")
        entries = found.items() if isinstance(found, Mapping) else ()
        named = [(name.rpartition("/"), digest) for name, digest in entries if isinstance(digest, str)]
        return [(plain_name(name), plain_name(part), plain_name(digest)) for (name, _, part), digest in named]

    @property
    def size(self) -> str:
        """``4,864 of 899,328 parameters (0.541 %)``; without a run, only how many values there are."""
        trainable, total, percent = (self.run.outcome(f"budget.{key}") for key in ("trainable", "total", "percent"))
        if not isinstance(trainable, int) or not isinstance(total, int) or not isinstance(percent, int | float):
            return f"{self._num_values():,} values"
        return f"{trainable:,} of {total:,} parameters ({percent:.3g} %)"

    def _num_values(self) -> int:
        with safe_open(self.origin.directory / TENSORS_FILE, framework="pt") as tensors:
            names = [name for name in tensors.keys() if not name.endswith(_NO_VALUES)]  # noqa: SIM118 - no iterable
            shapes = [tensors.get_slice(name).get_shape() for name in names]
        return sum(map(math.prod, shapes))

    def settings(self) -> Iterator[tuple[str, str]]:
        """What was trained and how: a name and a value each."""
        header = self.origin.header
        yield "method", self.method
        if header.get("top_k"):
            mean = " on average" if header.get("spread") else ""
            differs = header.get("top_k_pattern")
            yield "k, trained inputs of a neuron", "differs by layer" if differs else f"{header['top_k']}{mean}"
        if header.get("neuron_fraction") is not None:
            yield "share of neurons with some", f"{header['neuron_fraction']:g}"
        if isinstance(header.get("r"), int):
            yield "rank", str(header["r"])
        yield "trained", self.size
        yield from self._named("target layers", _listed(header.get("target_modules")))
        yield from self._named("connections chosen by", _selection(header.get("selection")))
        yield from self._named("modules that trained whole", _listed(header.get("modules_to_save")))
        yield from self._named("base stored as", header.get("precision"))
        yield from self._named("weighted sum of", ", ".join(self._parts()) or None)
        if self.run.result and not self.is_sum:
            yield from self._training()

    @property
    def is_sum(self) -> bool:
        """Whether it was added up of others, so that its run trained nothing."""
        return bool(self.origin.header.get("combined"))

    def _parts(self) -> Iterator[str]:
        """Name and weight of each adapter that it is the sum of."""
        parts = self.origin.header.get("combined")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, Mapping):
                yield f"{part.get('adapter')} ({part.get('weight')})"

    def _training(self) -> Iterator[tuple[str, str]]:
        run = self.run
        yield from self._named("learning rate", run.setting("optimizer.lr"))
        yield from self._named("schedule", run.setting("scheduler.name"))
        yield from self._named("examples in a step", run.setting("data.batch_size"))
        yield from self._named("optimizer steps", run.outcome("timings.optimizer_steps"))
        yield from self._named("training rows", run.outcome("training_rows.rows"))
        yield from self._named("loss on", run.setting("task.objective") or run.setting("task.loss_on"))
        yield from self._named("computed in", run.outcome("content.dtype"))
        yield from self._named("device", run.outcome("device"))
        yield from self._named("seed", run.setting("seed"))

    @staticmethod
    def _named(name: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return
        yield name, f"{value:,}" if isinstance(value, int) else plain_setting(str(value))

    @property
    def versions(self) -> str:
        """``neuroada 0.1.0 (1a2b3c4), python 3.11.7, torch 2.13.0``; empty without a run."""
        found = self.run.outcome("versions")
        known: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        commit = self.run.outcome("git.commit")
        at = f" ({plain_name(commit)[:7]})" if isinstance(commit, str) else ""
        named = {"neuroada": at, **dict.fromkeys(_VERSIONS, "")}
        return ", ".join(
            f"{name} {plain_name(str(known[name]))}{more}" for name, more in named.items() if name in known
        )

    @property
    def forgetting(self) -> tuple[float, float] | None:
        """Loss on general text before and after training, in nats per token."""
        before, after = (self.run.outcome(f"forgetting.{key}") for key in ("before", "after"))
        return (before, after) if isinstance(before, float) and isinstance(after, float) else None


def run_of(directory: Path) -> Run:
    """The finished run that made an adapter; one without results if none is known.

    Raises:
        UserError: The adapter or another file of the run has changed since, or a file is damaged.
    """
    refuse_changed_adapter(directory)
    folder = directory.parent
    if directory.name != ADAPTER_FOLDER or not (folder / CONFIG_FILE).is_file():
        return Run.finished({})
    config = read_config(folder)
    if not (folder / RESULT_FILE).is_file():
        return Run.finished({"config": config})
    result = read_result(folder)
    for changed in changed_files(folder, result, read_adapter=False):
        if changed.how != "is missing":
            raise UserError(
                f"{folder / changed.path} {changed.how} since {RESULT_FILE} was written, so that no score can be "
                "published; put the file of the run back, or start the run again"
            )
    # The result holds the configuration that it belongs to.
    return Run.finished({**result, "config": plain(result.get("config") or config, folder / RESULT_FILE)})


def _listed(value: Any) -> str | None:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _selection(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return value if isinstance(value, str) else None
    return ", ".join(f"{key} {part}" for key, part in value.items())
