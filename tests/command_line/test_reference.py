"""``docs/configuration.md`` has today's groups, options and keys."""

from pathlib import Path

import pytest

from neuroada.command_line.reference import reference, with_reference
from neuroada.config.errors import UserError
from neuroada.config.field_texts import field_texts

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_reference(page) == page, f"python -m neuroada.command_line.reference {PAGE.relative_to(ROOT)}"


def test_every_option_file_and_every_key_of_the_schema_is_there() -> None:
    text = reference()
    options = [path for path in (ROOT / "conf").glob("*/**/*.yaml") if path.parts[len(ROOT.parts) + 1] != "hydra"]
    names = [path.relative_to(ROOT / "conf").with_suffix("").as_posix().split("/", 1)[1] for path in options]
    assert [name for name in names if f"| `{name}` |" not in text] == []
    keys = [key for key, field in field_texts().items() if field.type != "group" and field.text]
    assert [key for key in keys if f"| `{key}` |" not in text and f"## {key}\n" not in text] == []


def test_a_page_without_a_place_for_the_tables_is_refused() -> None:
    with pytest.raises(UserError, match="<!-- reference -->"):
        with_reference("# Configuration\n")
