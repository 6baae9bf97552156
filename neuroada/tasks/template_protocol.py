"""A protocol made of templates: what ``conf/protocol`` and ``protocol.*`` describe."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from neuroada.tasks.judges import Judge
from neuroada.tasks.log_likelihood import LogLikelihood, gold_choice
from neuroada.tasks.protocol import Example, Message, Protocol, ProtocolError, Verdict
from neuroada.tasks.templates import Expression, Template

MESSAGES = "messages"
"""Column of a conversation; a row that has one needs no prompt and no completion."""


class TemplateProtocol(Protocol):
    """Prompt and completion as Jinja templates over a row's columns.

    Args:
        name: Its name in configurations and records.
        prompt: Template of the prompt.
        completion: Template of what follows the prompt in training.
        judge: Judges a generation, or the likelihoods of the choices.
        choices: Expression of the list of possible answers (the name of a column is one), or a template for each of
            them; None if the model generates its answer.
        stop: Texts that end a generation.
        max_new_tokens: Longest generation, in tokens.
        chat: Whether the tokenizer's chat template renders the turns.
        keys: The plain values that it was made from.

    Raises:
        ProtocolError: A text is not a template, or the judge does not fit.
    """

    def __init__(
        self,
        name: str,
        prompt: str,
        completion: str,
        judge: Judge | LogLikelihood,
        choices: str | Sequence[str] | None = None,
        stop: Sequence[str] = (),
        max_new_tokens: int = 32,
        chat: bool = False,
        keys: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.max_new_tokens = max_new_tokens
        self.stop = tuple(stop)
        self.chat = chat
        self._prompt = Template("prompt", prompt)
        self._completion = Template("completion", completion)
        self.opening = self._completion.opening
        self._judge = judge
        self._choices = None if choices is None else _choices_of(choices)
        self.keys = dict(keys or {})
        if isinstance(judge, LogLikelihood) != (choices is not None):
            raise ProtocolError("choices and judge=log_likelihood belong together; give both or neither")

    @property
    def own_judge(self) -> Judge | None:
        """Its judge, if that is a function of the user."""
        chosen = self.keys.get("judge")
        is_own = isinstance(chosen, Mapping) and "_target_" in chosen and isinstance(self._judge, Judge)
        return self._judge if is_own else None  # type: ignore[return-value]  # a Judge

    @property
    def columns(self) -> frozenset[str]:
        """The columns that its templates name."""
        of_choices = self._choices if isinstance(self._choices, list) else [self._choices] if self._choices else []
        parts = [self._prompt, self._completion, *of_choices]
        return frozenset().union(*(part.columns for part in parts))

    def prompt(self, example: Example) -> str:
        return self._prompt(example.columns)

    def completion(self, example: Example) -> str:
        choices = self.choices(example)
        if choices is not None:
            example = replace(example, answer=choices[gold_choice(example.answer, choices)])
        return self._completion(example.columns)

    def continuation(self, example: Example, choice: str) -> str:
        return self._completion(replace(example, answer=choice).columns)

    def messages(self, example: Example) -> list[Message]:
        return list(example.row[MESSAGES]) if MESSAGES in example.row else super().messages(example)

    def choices(self, example: Example) -> list[str] | None:
        if self._choices is None:
            return None
        columns = example.columns
        if isinstance(self._choices, list):
            return [template(columns) for template in self._choices]
        found = self._choices(columns)
        if not isinstance(found, (list, tuple)) or len(found) < 2:
            raise ProtocolError(
                f"choices: must be a list of at least two, not {found!r}; correct {self._choices.source!r}"
            )
        return [str(choice) for choice in found]

    def judge(self, example: Example, generation: str) -> Verdict:
        assert isinstance(self._judge, Judge), "checked when it was made"
        return self._judge(generation, example.answer)

    def choose(self, log_likelihoods: Sequence[float], choices: Sequence[str], answer: str) -> Verdict:
        assert isinstance(self._judge, LogLikelihood), "checked when it was made"
        return self._judge(log_likelihoods, choices, answer)

    def gold_problem(self, answer: str) -> str | None:
        return self._judge.gold_problem(answer) if isinstance(self._judge, Judge) else super().gold_problem(answer)

    def definition(self) -> dict[str, Any]:
        return {"name": self.name, **self.keys}


def _choices_of(choices: str | Sequence[str]) -> Expression | list[Template]:
    if isinstance(choices, str):
        return Expression("choices", choices)
    return [Template("choices", choice) for choice in choices]
