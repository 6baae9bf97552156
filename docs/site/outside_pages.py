"""MkDocs hook: pages and pictures of the repository that lie outside ``docs/``, and links to its other files.

Records of sweeps stay with their figures and tables, so the site takes them from there.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

logger = logging.getLogger("mkdocs.hooks.outside_pages")  # MkDocs counts warnings of its own loggers
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("sweeps", "neuroada/bundled")
PAGES = ("README.md", "report.md")
SUFFIXES = (".svg", ".png", ".csv", ".json")
"""Kinds of file beside a page that it may show or link to."""
NOT_SHOWN = {"records", "model"}
DOCS = "docs/"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of FOLDERS under the paths that they have in the repository, and what lies beside them."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            place = path.relative_to(ROOT)
            is_shown = path.name in PAGES or path.suffix in SUFFIXES
            if is_shown and NOT_SHOWN.isdisjoint(place.parts):
                files.append(File.generated(config, place.as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write every link as MkDocs resolves it, and name a file that the site lacks instead of linking to it."""
    source = page.file.src_uri
    is_outside = any(source.startswith(f"{folder}/") for folder in FOLDERS)
    place = posixpath.dirname(source if is_outside else DOCS + source)

    def rewritten(match: re.Match[str]) -> str:
        bang, text, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(place, target))
        if not (ROOT / path).exists():
            logger.warning("%s: links to %s, but there is no %s", source, target, path)
        wanted = path.removeprefix(DOCS)
        if files.get_file_from_path(wanted) is not None:
            return f"{bang}[{text}]({posixpath.relpath(wanted, posixpath.dirname(source) or '.')}{anchor})"
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{anchor})"
        return text if "`" in text else f"{text} (`{path}`)" if text != path else f"`{path}`"

    return _LINK.sub(rewritten, markdown)
