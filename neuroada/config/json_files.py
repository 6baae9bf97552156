"""Read a JSON file that anything may have been done to: its text, its shape and one error.

pydantic's parser refuses what would break later: half a surrogate pair, nesting without end, numbers of a thousand
digits. Its checker compares the values with a ``TypedDict``; keys that it does not name pass: newer versions add some.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroada.config.errors import UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def read_json(path: Path, schema: Any, way_out: str) -> Any:
    """The content of a file.

    Args:
        schema: The type of its content, such as a ``TypedDict`` of ``typing_extensions``.
        way_out: What a user does about a damaged file; the end of the message.

    Raises:
        UserError: The file cannot be read, is no JSON, or has another shape; with the first field that does.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {way_out}") from error
    try:
        return parsed(content, schema)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {way_out}") from error


def parsed(content: bytes | str, schema: Any) -> Any:
    """The value of a JSON text, as it stands there.

    Raises:
        ValueError: It is no JSON, or has another shape; with one line that names the field.
    """
    from pydantic_core import from_json  # takes a tenth of a second

    return checked(from_json(content), schema)


def checked(value: Any, schema: Any) -> Any:
    """The same value.

    Raises:
        ValueError: It has another shape; with one line that names the field.
    """
    from pydantic import ValidationError

    try:
        _checker(schema).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(_problem(field, first["type"], first["msg"])) from None
    return value


def _problem(field: str, kind: str, message: str) -> str:
    if kind == "missing":
        return f"lacks the field {field!r}"
    said = message.replace("Input should", "should")
    return f"field {field!r} {said}" if field else f"its content {said}"


@functools.cache
def _checker(schema: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(schema)
