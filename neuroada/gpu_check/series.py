"""Run parts one after another, each added to the file as it ends."""

import time
from collections.abc import Callable, Sequence

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from neuroada.costs.measurement import device_name
from neuroada.gpu_check.ledger import Ledger, PartRecord
from neuroada.gpu_check.parts import PARTS, Part
from neuroada.gpu_check.running import PartEnded, Run
from neuroada.gpu_check.setting import Row, Setting


def run_parts(names: Sequence[str], setting: Setting, ledger: Ledger, run: Run) -> dict[str, str]:
    """Run what fits into the minutes that there are, and write the file after each part.

    Args:
        run: In this process, or in one of its own.

    Returns:
        Why parts were left for another start.
    """
    started, allowed = time.monotonic(), setting.check.minutes * 60
    left_seconds = sum(PARTS[name].expected_seconds for name in names)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}")) as progress:
        bar = progress.add_task("", total=left_seconds, said="")
        for place, name in enumerate(names):
            part, remaining = PARTS[name], allowed - (time.monotonic() - started)
            if part.expected_seconds > remaining:
                reason = f"gpu_check.minutes={setting.check.minutes:g} are over; start the same command again"
                return dict.fromkeys(names[place:], reason)
            about = f"{name}, part {place + 1} of {len(names)}, about {left_seconds / 60:.0f} min left on an H100"
            progress.update(bar, description=about)
            limit = min(part.limit_seconds, remaining)
            ledger.add(name, _record(part, setting, run, limit, lambda row: progress.update(bar, said=row["what"])))
            left_seconds -= part.expected_seconds
            progress.advance(bar, part.expected_seconds)
        progress.update(bar, said="")
    return {}


def _record(part: Part, setting: Setting, run: Run, limit_seconds: float, show: Callable[[Row], None]) -> PartRecord:
    rows: list[Row] = []
    ended = None
    started = time.monotonic()
    try:
        for row in run(part.rows, setting, limit_seconds):
            rows.append(row)
            show(row)
    except PartEnded as reason:
        ended = str(reason)
    return PartRecord(device_name(setting.device), round(time.monotonic() - started, 1), ended, rows)
