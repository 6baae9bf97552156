"""README: it begins with the two commands, and what it links to and shows exists. ``tests/docs`` walks its commands."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_begins_with_the_two_commands() -> None:
    first = re.search(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    assert [line.partition("  #")[0].strip() for line in first[1].splitlines()] == ["make demo", "make test"]


def test_it_shows_how_both_commands_end() -> None:
    assert re.search(
        r"^run folder: outputs/finetune/bundled/bundled/neuroada-k1-[0-9a-f]{8}/s42$", README, re.MULTILINE
    )
    assert re.search(r"^=+ \d+ passed, .* in [\d.]+s .*=+$", README, re.MULTILINE)


def test_it_says_how_to_use_the_environment() -> None:
    assert "source .venv/bin/activate" in README


def test_pictures_and_links_inside_the_repository_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", README)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_page_of_the_docs_can_be_reached_from_it() -> None:
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - {"docs/index.md", "docs/releasing.md"} <= set(re.findall(r"\]\((docs/[\w/]+\.md)", README))
