"""The name of a run folder: the pattern ``folder`` of the job in ``conf/job``, filled with the run's values and a
digest."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from neuroada.config.job_schema import TAKE_SEVERAL
from neuroada.config.requirements import require_inside, require_name
from neuroada.runs.identity import identity


def run_folder(values: Mapping[str, Any]) -> str:
    """``<job>/`` followed by the job's ``folder`` pattern, filled from a resolved configuration.

    It is ``.`` for several adapters, each of which has its own run folder, unless the job takes them together.

    Raises:
        UserError: A value cannot be used as a folder name.
    """
    if isinstance(values.get("adapter"), list) and values["job"]["name"] not in TAKE_SEVERAL:
        return "."
    require_inside("job.folder", values["job"]["folder"])
    canonical = json.dumps(identity(values), sort_keys=True, default=str)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]

    def filled(field: re.Match[str]) -> str:
        return digest if field[1] == "digest" else _name_at(field[1], values)

    return f"{_name_at('job.name', values)}/{re.sub(r'{([^{}]+)}', filled, values['job']['folder'])}"


def _name_at(path: str, values: Mapping[str, Any]) -> str:
    value: Any = values
    for key in path.split("."):
        value = value[key]
    require_name(path, str(value))
    return str(value)
