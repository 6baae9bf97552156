"""Which configuration values determine the outcome of a run.

Each job declares them in ``conf/job``: ``depends_on`` and ``but_not_on`` list what counts and what does not.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from neuroada.config.errors import shown
from neuroada.runs.device import run_device

_SEED = "{seed}"


def identity(values: Mapping[str, Any], job: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values that determine the outcome, except the seed: dotted path -> value; null counts as absent.

    Args:
        values: A resolved configuration.
        job: The ``job`` section that declares what counts; by default that of ``values``. To compare two
            configurations, use the same section for both.

    Raises:
        KeyError: The section declares nothing, like those stored by earlier versions.
    """
    declared = values["job"] if job is None else job
    depends_on, but_not_on = set(declared["depends_on"]), set(declared["but_not_on"])
    counting = {path: value for path, value in _leaves(values) if _counts(path, depends_on, but_not_on)}
    if "device" in depends_on:
        counting["device"] = run_device((values.get("trainer") or {}).get("accelerator", "auto"))
    return {"job.name": values["job"]["name"], **counting}


def differences(stored: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """The differences that make a stored configuration a different run, in the format of ``changed_keys``.

    The job of the present configuration declares what counts. The seed counts if run folders contain it.
    """
    job = present["job"]
    before, now = identity(stored, job), identity(present, job)
    if _SEED in job["folder"]:
        before["seed"], now["seed"] = stored.get("seed"), present.get("seed")
    return changed_keys(before, now)


def changed_keys(stored: Mapping[str, Any], present: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each value that differs: ``optimizer.lr: 0.0007 there, 0.003 here``."""
    lines = []
    for key in dict.fromkeys([*stored, *present]):
        before, now = stored.get(key), present.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            lines += changed_keys(before, now, f"{prefix}{key}.")
        elif before != now:
            lines.append(f"{prefix}{key}: {shown(before)} there, {shown(now)} here")
    return lines


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _counts(path: str, depends_on: set[str], but_not_on: set[str]) -> bool:
    """Whether the most specific declared path that contains this one is in ``depends_on``."""
    while path:
        if path in but_not_on:
            return False
        if path in depends_on:
            return True
        path = path.rpartition(".")[0]
    return False
