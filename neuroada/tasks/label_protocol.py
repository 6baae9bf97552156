"""The protocols of texts with a label: which columns are read, what the label is, and how a prediction is judged."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from neuroada.tasks.label_metrics import Measured, measured_labels, measured_values
from neuroada.tasks.protocol import Example, Protocol, ProtocolError, Verdict, unanswered

LABEL = "label"
"""Column of the label."""
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("text", "text_pair"),
)
SINGLE = ("text", "sentence")
"""Columns of the texts, by the names that GLUE and its like give them; the first that a row has are read."""

Row = Mapping[str, Any]


class LabelProtocol(Protocol):
    """What classification and regression share. Nothing is generated: a head on the backbone gives its result.

    Args:
        metrics: What a benchmark reports; the first is its score.
    """

    max_new_tokens = 0

    def __init__(self, metrics: Sequence[str]) -> None:
        self.metrics = tuple(metrics)

    def texts(self, row: Row) -> tuple[str, str | None]:
        """The text of a row, or its two texts.

        Raises:
            ProtocolError: It has no such columns.
        """
        first, second = next((pair for pair in PAIRS if all(name in row for name in pair)), (None, None))
        if first is None:
            first = next((name for name in SINGLE if name in row), None)
        if first is None:
            raise ProtocolError(
                f"has none of the columns {_named(PAIRS)} or {' or '.join(SINGLE)} (there are {', '.join(row)}); "
                "rename its own with columns"
            )
        return _text(row, first), None if second is None else _text(row, second)

    @abstractmethod
    def label_of(self, row: Row) -> str:
        """The gold label of a row, as text.

        Raises:
            ProtocolError: It has none, or one that is not valid.
        """

    @abstractmethod
    def target(self, answer: str) -> float:
        """The number that the head is trained towards: the place of a class, or the value itself."""

    @abstractmethod
    def measured(self, rows: Sequence[Row]) -> Measured:
        """The metrics over all predictions of a benchmark."""

    def prompt(self, example: Example) -> str:
        return "\n".join(text for text in self.texts(example.row) if text is not None)

    def completion(self, example: Example) -> str:
        return example.answer

    def definition(self) -> dict[str, Any]:
        return {"name": self.name, "metrics": list(self.metrics)}


class Classes(LabelProtocol):
    """One of several classes.

    Args:
        labels: Their names, in the order of the head's outputs.
        metrics: See ``LabelProtocol``.
    """

    name = "classification"

    def __init__(self, labels: Sequence[str], metrics: Sequence[str] = ("accuracy",)) -> None:
        super().__init__(metrics)
        self.labels = tuple(labels)
        self._numbered = {_number(label): label for label in self.labels if math.isfinite(_number(label))}

    def label_of(self, row: Row) -> str:
        given = _label(row)
        text = str(given).lower() if isinstance(given, bool) else str(given).strip()
        if text in self.labels:
            return text
        number = float(given) if isinstance(given, bool) else _number(text)
        if found := self._of_number(number):
            return found
        hidden = " (-1 hides the label of a test set: score another split)" if number == -1 else ""
        other = "" if self._numbered else ", or give its number from 0"
        raise ProtocolError(
            f"the label {text!r} is none of {', '.join(self.labels)}{hidden}; correct it or task.labels{other}"
        )

    def _of_number(self, number: float) -> str | None:
        """The class with this number: of classes that are called by numbers, such as grades from 1, never the place."""
        if self._numbered:
            return self._numbered.get(number)
        return self.labels[int(number)] if number in range(len(self.labels)) else None

    def target(self, answer: str) -> float:
        return float(self.labels.index(answer))

    def definition(self) -> dict[str, Any]:
        return {**super().definition(), "labels": list(self.labels)}

    def judge(self, example: Example, generation: str) -> Verdict:
        correct = generation == example.answer
        return Verdict(generation, generation, correct, correct, missing_trigger=False)

    def choose(self, log_likelihoods: Sequence[float], choices: Sequence[str], answer: str) -> Verdict:
        """As for choices of a text: the largest wins, the first of equal ones; probabilities will do."""
        chosen = choices[max(range(len(choices)), key=lambda place: log_likelihoods[place])]
        return Verdict(chosen, chosen, chosen == answer, chosen == answer, missing_trigger=False)

    def gold_problem(self, answer: str) -> str | None:
        return None if answer in self.labels else f"is {answer!r}, which is none of {', '.join(self.labels)}"

    def measured(self, rows: Sequence[Row]) -> Measured:
        places = {label: place for place, label in enumerate(self.labels)}
        predicted = [places[row["extracted"]] for row in rows]
        return measured_labels(self.metrics, predicted, [places[row["answer"]] for row in rows], len(places))


class Values(LabelProtocol):
    """A number. A prediction is neither right nor wrong; only all of them together are scored.

    Args:
        metrics: See ``LabelProtocol``.
    """

    name = "regression"

    def __init__(self, metrics: Sequence[str] = ("pearson",)) -> None:
        super().__init__(metrics)

    def label_of(self, row: Row) -> str:
        given = _label(row)
        number = math.nan if isinstance(given, bool) else _number(given)
        if not math.isfinite(number):
            raise ProtocolError(f"the label {given!r} is no number; correct it")
        return repr(number)

    def target(self, answer: str) -> float:
        return float(answer)

    def judge(self, example: Example, generation: str) -> Verdict:
        return unanswered()

    def gold_problem(self, answer: str) -> str | None:
        return None if math.isfinite(_number(answer)) else f"is {answer!r}, which is no number"

    def measured(self, rows: Sequence[Row]) -> Measured:
        return measured_values(self.metrics, [row["value"] for row in rows], [float(row["answer"]) for row in rows])


def label_protocol(
    objective: str | None, labels: Sequence[str] | None, metrics: Sequence[str] | None
) -> LabelProtocol | None:
    """The protocol of a task, from the keys of its configuration; None for language modelling."""
    if objective is None:
        return None
    if objective == Classes.name:
        return Classes(labels or (), metrics or ("accuracy",))
    return Values(metrics or ("pearson",))


def _label(row: Row) -> Any:
    if row.get(LABEL) is None:
        raise ProtocolError(f"has no {LABEL} (there are {', '.join(row)}); rename its column with columns")
    return row[LABEL]


def _text(row: Row, name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise ProtocolError(f"the column {name} holds {value!r}; it must be a text")
    return value


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _named(pairs: Sequence[Sequence[str]]) -> str:
    return ", ".join(" and ".join(pair) for pair in pairs)
