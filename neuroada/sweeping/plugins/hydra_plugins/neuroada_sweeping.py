"""The default sweeper and launcher; Hydra finds plugins only in this folder.

Every Hydra application in an environment imports this file at its start, so the implementations are imported on use.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn

if TYPE_CHECKING:
    from neuroada.sweeping.launching import JobProcesses
    from neuroada.sweeping.sweep_jobs import Job


class GridSweeper(BasicSweeper):
    """``hydra/sweeper=grid``: every combination of listed values; see ``neuroada.sweeping.grid``."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        from neuroada.sweeping.grid import sweep

        sweep(self, arguments)


class ProcessLauncher(BasicLauncher):
    """``hydra/launcher=processes``: a new process for every job; see ``neuroada.sweeping.launching``."""

    def __init__(self, n_jobs: int = 1, gpus: Any = None) -> None:
        super().__init__()
        self.n_jobs, self.gpus = n_jobs, gpus

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self._processes().launch(job_overrides, initial_job_idx)

    def run(self, jobs: "Sequence[Job]") -> None:
        """Run planned jobs; each job object records its outcome."""
        self._processes().run(jobs)

    def _processes(self) -> "JobProcesses":
        from neuroada.sweeping.launching import JobProcesses

        return JobProcesses(self, self.n_jobs, self.gpus)
