"""Lightning's logger interface for Trackio, of which Lightning has none of its own."""

import contextlib
import io
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub.errors import LocalTokenNotFoundError
from lightning.fabric.utilities.logger import _convert_params
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line

if TYPE_CHECKING:
    from trackio import Run

logger = logging.getLogger(__name__)


class TrackioLogger(Logger):
    """Logs to one run of a Trackio project.

    It is in a database of this machine (``TRACKIO_DIR``) unless a Space is named. Trackio's own process is not needed:
    ``trackio show`` reads the database.

    Args:
        project: The project, which is made if it is new.
        name: The run's name; Trackio's choice if there is none.
        space_id: A Space of the Hub to log to; it is made if it is new.
        resume: Whether the newest run of this name goes on, as for ``trackio.init``.

    Raises:
        ImportError: The trackio package is not installed.
    """

    def __init__(
        self,
        project: str = "neuroada",
        name: str | None = None,
        space_id: str | None = None,
        resume: Literal["allow", "never", "must"] = "allow",
    ) -> None:
        super().__init__()
        import trackio  # an extra

        self._trackio = trackio
        self._project, self._run_name, self._space_id, self._resume = project, name, space_id, resume
        self._settings: dict[str, Any] = {}
        self._run: Run | None = None
        self._is_told = False

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The name of the run."""
        return self._run_name

    @property
    @rank_zero_experiment
    def experiment(self) -> "Run":
        """Trackio's run, begun or continued at the first use.

        Raises:
            UserError: Trackio refuses the project or the Space.
        """
        if self._run is None:
            self._run = self._begin()
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self._settings = _convert_params(params)
        self.experiment.config.update(self._settings)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_table(
        self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], step: int | None = None
    ) -> None:
        """Log a table under a name, row by row."""
        table = self._trackio.Table(columns=list(columns), data=[list(row) for row in data])
        self.experiment.log({key: table}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what waits; the same run goes on if something is logged later, such as scores after training."""
        if self._run is None:
            return
        with _unsaid():
            self._trackio.finish()
        self._run = None

    def _begin(self) -> "Run":
        try:
            with _unsaid():
                run = self._trackio.init(
                    project=self._project,
                    name=self._run_name,
                    space_id=self._space_id,
                    resume=self._resume,
                    config=self._settings,
                    embed=False,
                )
        except (LocalTokenNotFoundError, ValueError) as error:
            raise UserError(f"logger.trackio: {first_line(error)}") from error
        if not self._is_told:
            logger.info("logger.trackio: run %s; trackio show --project %s", run.name, self._project)
        self._run_name, self._resume, self._is_told = run.name, "allow", True
        return run


def _unsaid() -> contextlib.redirect_stdout[io.StringIO]:
    """What Trackio prints at each start and end; the log says it once, and stdout belongs to the run's summary."""
    return contextlib.redirect_stdout(io.StringIO())
