"""Which rows of a data set are used: those of which an expression holds, and of these the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroada.config.errors import UserError
from neuroada.tasks.protocol import ProtocolError
from neuroada.tasks.templates import Expression


@dataclass(frozen=True)
class Picked:
    """A choice of rows, which keeps their order.

    Args:
        where: Expression over the columns of a row, under their names in the file; None lets all pass.
        rows: How many of these at most, from the beginning; None means all.

    Raises:
        ProtocolError: ``where`` is not an expression.
    """

    where: str | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.where is not None:
            Expression("where", self.where)

    def indices(self, place: object, rows: Sequence[Any]) -> list[int]:
        """Where the chosen rows are, from 0, without a look at those after the last of them.

        Args:
            place: The file or data set, for messages.
            rows: As they were read; what is no object passes, and is refused where rows are checked.

        Raises:
            UserError: There is none, or ``where`` has no value for a row.
        """
        if self.where is None:
            return list(range(len(rows)))[: self.rows]
        holds = Expression("where", self.where)
        chosen: list[int] = []
        for index, row in enumerate(rows):
            if len(chosen) == self.rows:
                break
            try:
                if not isinstance(row, Mapping) or holds(row):
                    chosen.append(index)
            except ProtocolError as error:
                raise UserError(f"{place}: row {index + 1}: {error}") from error
        if not chosen:
            raise UserError(f"{place}: where: holds for none of {len(rows):,} rows; correct {self.where!r}")
        return chosen
