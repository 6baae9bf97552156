"""Jinja templates over the columns of a row, in a sandbox: a template from a received folder is only text.

Beside Jinja's own filters there is ``regex_findall(pattern)``, named as in Ansible: all matches in a text, as
``re.findall`` gives them.
"""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from neuroada.tasks.protocol import ProtocolError

# The trailing newline of a prompt matters: Jinja would drop it.
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_ENVIRONMENT.filters["regex_findall"] = lambda text, pattern: re.findall(pattern, text)

_RENDERING_ERRORS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, re.error)


class Template:
    """One text with places for columns, such as ``"Q: {{ question }}\\nA:"``.

    Args:
        key: Where it was configured, for messages: ``prompt``.
        source: Its text.

    Attributes:
        columns: The columns that it names.
        opening: The text before its first place.

    Raises:
        ProtocolError: The text is not a template.
    """

    def __init__(self, key: str, source: str) -> None:
        self.source = source
        self._key = key
        try:
            parsed = _ENVIRONMENT.parse(source)
            self._template = _ENVIRONMENT.from_string(source)
        except TemplateError as error:
            raise ProtocolError(f"{key}: not a Jinja template ({_first_line(error)}); correct {source!r}") from error
        self.columns = frozenset(meta.find_undeclared_variables(parsed))
        self.opening = _opening(parsed)

    def __call__(self, columns: Mapping[str, Any]) -> str:
        """The text of one row; raises ProtocolError if a column is missing."""
        try:
            return self._template.render(columns)
        except _RENDERING_ERRORS as error:
            missing = sorted(self.columns - columns.keys())
            if missing:
                problem = f"there is no column {missing[0]!r} (there are {', '.join(columns)})"
            else:
                problem = _first_line(error)
            raise ProtocolError(f"{self._key}: {problem}; correct the template {self.source!r}") from error


class Expression:
    """A value made of columns, such as ``choices`` or ``answers.text`` or ``options.split("/")``.

    Args:
        key: Where it was configured, for messages.
        source: A Jinja expression.

    Attributes:
        columns: The columns that it names.

    Raises:
        ProtocolError: The text is not an expression.
    """

    def __init__(self, key: str, source: str) -> None:
        self.source = source
        self._key = key
        try:
            self.columns = frozenset(meta.find_undeclared_variables(_ENVIRONMENT.parse(f"{{{{ {source} }}}}")))
            self._value = _ENVIRONMENT.compile_expression(source, undefined_to_none=False)
        except TemplateError as error:
            raise ProtocolError(f"{key}: not a Jinja expression ({_first_line(error)}); correct {source!r}") from error

    def __call__(self, columns: Mapping[str, Any]) -> Any:
        """The value for one row; raises ProtocolError if a column is missing."""
        try:
            value = self._value(columns)
            str(value)  # raises for an undefined one
        except _RENDERING_ERRORS as error:
            raise ProtocolError(
                f"{self._key}: {_first_line(error)} (there are {', '.join(columns)}); correct {self.source!r}"
            ) from error
        return value


def _opening(parsed: nodes.Template) -> str:
    first = parsed.body[0] if parsed.body else None
    start = first.nodes[0] if isinstance(first, nodes.Output) and first.nodes else None
    return start.data if isinstance(start, nodes.TemplateData) else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
