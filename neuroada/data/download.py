"""Fetch missing files into ``data.dir``: resumable, checked, atomic, and by one process at a time."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path

import httpx
from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from neuroada.config.addresses import without_credentials
from neuroada.config.errors import UserError
from neuroada.data.catalog import RemoteFile
from neuroada.data.data_split import DataSplit
from neuroada.data.reference_split import split_source
from neuroada.storage.whole_files import replace

logger = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
_MAX_BARREN_TRIES = 3
"""Consecutive requests without any new bytes before giving up."""
_MOST_BYTES = 2**30
"""Longest file that is fetched, ten times the largest data set: a server may send without end."""
_PAUSE_S = 2.0
"""Seconds to wait after a request without new bytes; increases with each."""


def ensure(files: Iterable[DataSplit], data_dir: Path, url: str) -> None:
    """Fetch missing files; existing files are left unchanged, whatever they contain.

    Raises UserError if a file is missing and cannot be fetched. Processes that share ``data_dir`` take turns, so only
    the first one fetches.
    """
    missing = refuse_absent(files)
    if not missing:
        return
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / ".download.lock"):
            for file in missing:
                _fetch(file, data_dir, url.rstrip("/"))
    except OSError as error:
        raise UserError(f"data.dir={data_dir}: cannot be written ({error.strerror or error})") from error


def refuse_absent(files: Iterable[DataSplit]) -> list[DataSplit]:
    """The files that are missing; raises UserError if one of them cannot be fetched."""
    missing = [file for file in files if not file.path.exists() and not file.is_on_hub]
    for file in missing:
        held_out = file.dataset.held_out
        if file.dataset.origin is not None:
            raise UserError(f"{file.path}: no such file; correct the path of the data set {file.dataset.name}")
        if file.split in file.dataset.remote or (held_out and file.split in held_out.sha256):
            continue
        available = [*file.dataset.remote, *(held_out.sha256 if held_out else ())]
        upstream = f"only its {' and '.join(available)} split can be fetched" if available else "it is not fetched"
        raise UserError(
            f"{file.path}: no such file, and {upstream}; put a file there (JSON, JSON lines, CSV, TSV or Parquet), or "
            "set data.dir to the folder that has it"
        )
    return missing


def _fetch(file: DataSplit, data_dir: Path, url: str) -> None:
    target = file.path
    if target.exists():  # another process has fetched it
        return
    target.parent.mkdir(exist_ok=True)
    held_out = file.dataset.held_out
    if held_out is None or file.split in file.dataset.remote:
        _fetch_file(file.dataset.remote[file.split], target, url)
        return
    source = target.parent / "source.json"
    if not source.exists():
        _fetch_file(held_out.source, source, url)
    split_source(source, held_out)


def _fetch_file(remote: RemoteFile, target: Path, url: str) -> None:
    address = f"{url}/{remote.path}"
    shown = without_credentials(address)
    partial = target.with_name(f"{target.name}.incomplete")
    with _progress_bar() as progress:
        task = progress.add_task(f"{target.parent.name}/{target.name}", total=None)
        try:
            _download(address, partial, progress, task)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UserError(
                f"{target}: missing, and {shown} cannot be read ({_reason(error)}); try again with a connection, "
                "correct data.url, put the file there yourself, or set data.dir to a folder that has it"
            ) from error
    _check(partial, remote, shown)
    replace(partial, target)
    logger.info("fetched %s from %s", target, shown)


def _progress_bar() -> Progress:
    return Progress(TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())


def _download(address: str, partial: Path, progress: Progress, task: TaskID) -> None:
    """Complete ``partial`` from where it ends, and retry whenever the connection breaks."""
    barren_tries = 0
    while True:
        size_before = _size(partial)
        try:
            _request_rest(address, partial, progress, task)
            return
        except httpx.TransportError as error:
            barren_tries = barren_tries + 1 if _size(partial) <= size_before else 0
            if barren_tries >= _MAX_BARREN_TRIES or _size(partial) == 0:
                raise
            time.sleep(_PAUSE_S * barren_tries)
            shown = without_credentials(address)
            logger.warning("%s broke off after %d bytes (%s); retrying", shown, _size(partial), _reason(error))


def _request_rest(address: str, partial: Path, progress: Progress, task: TaskID) -> None:
    start = _size(partial)
    # Byte ranges of a compressed response would not be those of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    shown, given = without_credentials(address), httpx.URL(address)
    # Apart from the address, which httpx logs.
    auth = (given.username, given.password) if given.username or given.password else None
    with httpx.stream("GET", shown, auth=auth, headers=headers, timeout=_TIMEOUT_S, follow_redirects=True) as response:
        if start and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return  # it was complete already
            partial.unlink()  # longer than the file: left by something else
            _request_rest(address, partial, progress, task)
            return
        response.raise_for_status()
        resumes = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        start = start if response.status_code == httpx.codes.PARTIAL_CONTENT and resumes else 0
        length = response.headers.get("Content-Length")
        progress.update(task, completed=start, total=start + int(length) if length else None)
        with partial.open("ab" if start else "wb") as sink:
            for chunk in response.iter_raw():
                sink.write(chunk)
                progress.advance(task, len(chunk))
                _refuse_endless(sink.tell(), partial, shown)


def _refuse_endless(size: int, partial: Path, shown: str) -> None:
    if size <= _MOST_BYTES:
        return
    partial.unlink()
    raise UserError(
        f"{shown}: is longer than {_MOST_BYTES:,} bytes, more than any of these data sets; correct data.url, or put "
        "the file there yourself"
    )


def _check(partial: Path, remote: RemoteFile, address: str) -> None:
    """Compare with what is known about the original; a file that differs is deleted."""
    content = partial.read_bytes()
    if remote.sha256 and remote.sha256 not in _digests(content):
        partial.unlink()
        raise UserError(
            f"{address}: is not the expected file (sha256 {hashlib.sha256(content).hexdigest()}, expected "
            f"{remote.sha256}); try again, or correct data.url to the pinned commit"
        )
    num_rows = _count_rows(content)
    if num_rows is None or num_rows != (remote.num_rows or num_rows):
        partial.unlink()
        found = "no list of rows" if num_rows is None else f"{num_rows} rows"
        raise UserError(f"{address}: contains {found}, expected {remote.num_rows or 'some'}; correct data.url")


def _digests(content: bytes) -> set[str]:
    """Hashes of the content with LF and with CRLF: git checkouts differ in line endings, the JSON does not."""
    with_lf = content.replace(b"\r\n", b"\n")
    return {hashlib.sha256(form).hexdigest() for form in (with_lf, with_lf.replace(b"\n", b"\r\n"))}


def _count_rows(content: bytes) -> int | None:
    try:
        rows = json.loads(content)
    except ValueError:
        return None
    return len(rows) if isinstance(rows, list) else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}"
    return type(error).__name__
