"""The documentation is a site in which every page is reachable and no link is broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "docs" / "site"


def built(folder: Path, config: Path = SITE / "mkdocs.yml") -> "subprocess.CompletedProcess[str]":
    """Build the site as ``make docs`` does, into a folder."""
    pytest.importorskip("material", reason="needs mkdocs-material: pip install 'neuroada[docs]'")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(folder),
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    finished = built(tmp_path / "site")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    pages = {path.relative_to(tmp_path / "site").with_suffix(".md") for path in (tmp_path / "site").rglob("*.html")}
    written = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert written <= pages
    assert Path("sweeps/methods/index.md") in pages
    assert (tmp_path / "site" / "sweeps" / "methods" / "figures").is_dir()


@pytest.mark.slow
def test_every_broken_link_is_named_and_fails(tmp_path: Path) -> None:
    """In a copy of the repository's pages."""
    broken = ("gone.md", "methods.md#no-such-heading", "../conf/no/such/file.yaml", "images/none.png")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for folder in ("sweeps", "neuroada", "conf", ".github"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    home = tmp_path / "docs" / "index.md"
    home.write_text("\n".join(f"- [text]({target})" for target in broken), encoding="utf-8")
    finished = built(tmp_path / "site", tmp_path / "docs" / "site" / "mkdocs.yml")
    assert finished.returncode != 0
    assert all(target.rpartition("/")[2].rpartition("#")[2] in finished.stderr for target in broken)
