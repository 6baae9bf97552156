"""The training sets of a task, without the questions of the benchmarks in ``task.clean_of``."""

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence

from neuroada.config.errors import UserError
from neuroada.config.schema import TaskConfig
from neuroada.data.data_split import DataSplit
from neuroada.data.entries import Sources
from neuroada.data.leaks import trained_on, without
from neuroada.data.rows import require_completions
from neuroada.tasks.protocol import Example

logger = logging.getLogger(__name__)


class TrainingSets:
    """Files and rows that a task trains on.

    Args:
        task: Names the training sets, and the benchmarks whose test questions are dropped from them.
        sources: What their names are looked up in.

    Attributes:
        files: The training sets, in order.
        clean_of: Test sets whose questions are dropped.
    """

    def __init__(self, task: TaskConfig, sources: Sources) -> None:
        self.files = sources.splits(task.train, "train", "task.train")
        self.clean_of = sources.splits(task.clean_of, "test", "task.clean_of") if task.train else []
        self._dropped: dict[str, int] = {}

    @property
    def files_needed(self) -> list[DataSplit]:
        """Training sets first."""
        return self.files + self.clean_of

    @property
    def dropped(self) -> dict[str, int]:
        """Number of rows dropped from each training set; empty without ``clean_of``. Reads files not read yet."""
        if not self.clean_of:
            return {}
        for file in self.files:
            if file.dataset.name not in self._dropped:
                self.examples(file)
        return dict(self._dropped)

    def examples(self, file: DataSplit) -> list[Example]:
        """Every row of one training set, checked, without the rows that contain a dropped question.

        Raises:
            UserError: The file is malformed, or no row is left.
        """
        examples = file.examples(scored=False)
        require_completions(file.place, examples, file.protocol)
        if not self.clean_of:
            return examples
        kept = without(examples, self._questions)
        num_dropped = len(examples) - len(kept)
        if not kept:
            raise UserError(f"task.clean_of: every row of {file.place} contains a test question; leave out a benchmark")
        if file not in self.files:  # a validation file, which is not trained on
            return kept
        if file.dataset.name not in self._dropped:
            names = ", ".join(test.dataset.name for test in self.clean_of)
            logger.info(
                "%s: %d of %d rows dropped, test questions of %s", file.place, num_dropped, len(examples), names
            )
        self._dropped[file.dataset.name] = num_dropped
        return kept

    def leaked_items(self, benchmarks: Mapping[str, Sequence[Example]]) -> dict[str, frozenset[int]] | None:
        """Which items (``Example.index``) of each benchmark were trained on.

        None if a training file is missing, or, with a warning, if its questions cannot be read.
        """
        if not self.files or not all(file.is_there for file in self.files_needed):
            return None
        try:
            return trained_on(self._asked(), benchmarks)
        except UserError as error:
            logger.warning("contamination: not known, for what was trained on cannot be read (%s)", error)
            return None

    def _asked(self) -> Iterator[Example]:
        """The question of every row that is trained on."""
        for file in self.files:
            rows = file.questions()
            yield from without(rows, self._questions) if self.clean_of else rows

    @functools.cached_property
    def _questions(self) -> Sequence[Example]:
        return [row for file in self.clean_of for row in file.questions()]
