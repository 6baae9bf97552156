"""The tables of ``docs/configuration.md``: every group with its options and keys, from the schema and the YAML files.

``python -m neuroada.command_line.reference docs/configuration.md`` writes them into the page; a test compares the two.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from neuroada.command_line.composing import composed
from neuroada.command_line.explaining import argument_texts
from neuroada.config.errors import UserError
from neuroada.config.field_texts import FieldText, field_texts
from neuroada.config.location import conf_folder

BEGIN, END = "<!-- reference -->\n", "<!-- end -->"
OF_HYDRA = "hydra"
"""Groups below it are Hydra's own, with options of ours."""


def reference() -> str:
    """The tables, as Markdown."""
    values = OmegaConf.to_container(composed())
    assert isinstance(values, dict)
    texts = field_texts()
    groups = sorted(path.name for path in conf_folder().iterdir() if path.is_dir() and path.name != OF_HYDRA)
    sections = [_top_level(values, texts), *(_group(name, values.get(str(name)), texts) for name in groups)]
    sections += [_group(f"{OF_HYDRA}/{name}", None, texts) for name in ("launcher", "sweeper")]
    return "\n".join(sections)


def with_reference(page: str) -> str:
    """A page with today's tables between its two marks.

    Raises:
        UserError: The page lacks a mark.
    """
    before, has_begin, rest = page.partition(BEGIN)
    _, has_end, after = rest.partition(END)
    if not (has_begin and has_end):
        raise UserError(f"the page has no place for the tables; put {BEGIN.strip()} and {END} there")
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


def main() -> None:
    """Write the tables into the page that the command line names."""
    page = Path(sys.argv[1])
    page.write_text(with_reference(page.read_text(encoding="utf-8")), encoding="utf-8")


def _top_level(values: Mapping[Any, Any], texts: Mapping[str, FieldText]) -> str:
    names = [name for name, value in values.items() if not isinstance(value, dict) and str(name) in texts]
    rows = [_key_row(str(name), values[name], texts[str(name)]) for name in names]
    return "\n".join(["## Keys outside a group", "", *_key_table(rows)])


def _group(name: str, section: Any, texts: Mapping[str, FieldText]) -> str:
    """A heading, what the schema says, the options, and the keys of the option that is the default."""
    about = _cell(texts[name].text) if name in texts else ""
    lines = [f"## {name}", "", *([about, ""] if about else []), *_option_table(name)]
    rows = [] if not isinstance(section, dict) else list(_key_rows(name, section, texts))
    return "\n".join([*lines, *(_key_table(rows) if rows else [])])


def _option_table(group: str) -> Iterator[str]:
    yield from (f"| `{group}=` | |", "|---|---|")
    folder = conf_folder() / group
    for file in sorted(folder.rglob("*.yaml")):
        yield f"| `{file.relative_to(folder).with_suffix('').as_posix()}` | {_cell(_opening_comment(file))} |"
    yield ""


def _opening_comment(file: Path) -> str:
    """The comment that a file begins with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.removeprefix("# ") for line in comment if "@package" not in line)


def _key_rows(prefix: str, section: Mapping[Any, Any], texts: Mapping[str, FieldText]) -> Iterator[str]:
    # Other libraries' texts are theirs, and differ by version.
    arguments = argument_texts(section) if str(section.get("_target_")).startswith("neuroada.") else {}
    for name, value in section.items():
        key = f"{prefix}.{name}"
        field = texts.get(key)
        if isinstance(value, dict) and value and (field is None or field.type == "group"):
            yield from _key_rows(key, value, texts)
        else:
            yield _key_row(key, value, field or FieldText("", arguments.get(str(name), "")))


def _key_row(key: str, value: Any, field: FieldText) -> str:
    choices = f" One of {', '.join(f'`{choice}`' for choice in field.choices)}." if field.choices else ""
    return f"| `{key}` | {_default(value)} | {_cell(field.text)}{choices} |"


def _default(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return "`{}`".format(text.replace("|", "\\|")) if text else '`""`'


def _key_table(rows: list[str]) -> list[str]:
    return ["| key | default | |", "|---|---|---|", *rows, ""]


def _cell(text: str) -> str:
    """A text on one line, without what would end a cell or begin a tag; code spans stay as they are."""
    parts = " ".join(text.replace("``", "`").replace("|", "\\|").split()).split("`")
    return "`".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))


if __name__ == "__main__":
    main()
