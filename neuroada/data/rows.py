"""JSON data files -> checked examples. A file with any mistake is rejected.

This uses Python's JSON reader, because it keeps the types and the row number of a mistake, which table readers lose.
"""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from neuroada.config.errors import UserError
from neuroada.data.catalog import Dataset
from neuroada.tasks.protocol import Example, Protocol


def read_rows(path: Path, dataset: Dataset) -> list[Example]:
    """Every row of the file, each one checked; raises UserError naming the file, the row (from 1) and the field."""
    rows = _load(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: contains a JSON {_kind(rows)}; it must be one list of rows: [{{...}}, {{...}}]")
    if not rows:
        raise UserError(f"{path}: contains no rows; add at least one, or delete the file to have it fetched")
    return [_example(path, index, row, dataset.protocol) for index, row in enumerate(rows)]


def require_completions(path: Path, examples: list[Example], protocol: Protocol) -> None:
    """Raises UserError at the first example that has nothing to train on."""
    for example in examples:
        if not protocol.completion(example).strip():
            _refuse(path, example.index, "output", "is empty, so there is nothing to train on; fill it or drop the row")


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; put it there or set data.dir to the folder that has it") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON ({error.msg}); "
            "fix the file or delete it to have it fetched again"
        ) from error
    except (ValueError, RecursionError) as error:  # bad UTF-8, NaN, nested too deeply
        raise UserError(f"{path}: not JSON in UTF-8 ({error}); fix the file or delete it") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check data.dir and its permissions") from error


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value")


def _example(path: Path, index: int, row: Any, protocol: Protocol) -> Example:
    if not isinstance(row, dict):
        raise UserError(f"{path}: row {index + 1}: is a JSON {_kind(row)}; make it an object with instruction, answer")
    instruction = _text(path, index, row, "instruction")
    if not instruction.strip():
        _refuse(path, index, "instruction", "is empty; fill it or drop the row")
    # Six gsm8k test rows have an empty output; only training needs one (require_completions).
    output = _text(path, index, row, "output")
    if row.get("input"):
        _refuse(path, index, "input", "must be empty, because prompts do not use it; move it into 'instruction'")
    answer = _answer(path, index, row)
    problem = protocol.gold_problem(answer)
    if problem:
        _refuse(path, index, "answer", problem)
    return Example(index=index, instruction=instruction, output=output, answer=answer)


def _text(path: Path, index: int, row: dict[str, Any], field: str) -> str:
    if field not in row:
        _refuse(path, index, field, "is missing; add it")
    value = row[field]
    if not isinstance(value, str):
        _refuse(path, index, field, f"is a JSON {_kind(value)}; write it as a string")
    return value


def _answer(path: Path, index: int, row: dict[str, Any]) -> str:
    """The answer as text; some math files write it as a bare number."""
    value = row.get("answer")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    return _text(path, index, row, "answer")


def _refuse(path: Path, index: int, field: str, problem: str) -> NoReturn:
    raise UserError(f"{path}: row {index + 1}, field '{field}': {problem}")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "true/false", int: "number", float: "number"}
    return names.get(type(value), "null")
