"""Downloads over broken connections, from servers with and without byte ranges."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.data import download
from neuroada.data.catalog import Dataset, RemoteFile, lookup
from neuroada.data.data_split import DataSplit
from neuroada.data.download import ensure

ROWS = [{"instruction": f"{number} " + "x" * 50, "input": "", "output": "", "answer": "1"} for number in range(3000)]
CONTENT = json.dumps(ROWS, indent=4).encode()
BOOLQ = replace(lookup("boolq"), remote={"test": RemoteFile("dataset/boolq/test.json", 3000)})


@dataclass
class Upstream:
    """The server's files and failures; ``requests`` lists (path, first requested byte)."""

    files: dict[str, bytes]
    honours_ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)
    """Bytes sent for each of the first requests before the connection breaks."""
    requests: list[tuple[str, int]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    monkeypatch.setattr(download, "_PAUSE_S", 0)
    state = Upstream(files={"/dataset/boolq/test.json": CONTENT})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked and state.honours_ranges else 0
            state.authorizations.append(self.headers.get("Authorization"))
            state.requests.append((self.path, int(asked[1]) if asked else 0))
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + state.breaks_after.pop(0) if state.breaks_after else len(content)
            self.wfile.write(content[start:end])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def fetched(data_dir: Path) -> bytes:
    return (data_dir / "boolq" / "test.json").read_bytes()


def leftovers(data_dir: Path) -> list[str]:
    return [path.name for path in data_dir.rglob("*.incomplete")]


def test_missing_file_is_fetched_once(upstream: Upstream, tmp_path: Path) -> None:
    for _ in range(2):
        ensure([of(BOOLQ, tmp_path / "new" / "data")], tmp_path / "new" / "data", upstream.url + "/")
    assert fetched(tmp_path / "new" / "data") == CONTENT
    assert upstream.requests == [("/dataset/boolq/test.json", 0)]
    assert leftovers(tmp_path) == []


def test_existing_file_is_left_as_it_is_and_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "test.json").write_text("mine")
    ensure([of(BOOLQ, tmp_path)], tmp_path, "http://127.0.0.1:1")
    assert fetched(tmp_path) == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["boolq"]


def test_broken_line_is_resumed_where_it_broke(upstream: Upstream, tmp_path: Path) -> None:
    upstream.breaks_after = [100_000, 50_000]
    ensure([of(BOOLQ, tmp_path)], tmp_path, upstream.url)
    assert fetched(tmp_path) == CONTENT
    assert [start for _, start in upstream.requests] == [0, 100_000, 150_000]


def test_a_later_run_resumes_what_an_earlier_one_left(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "test.json.incomplete").write_bytes(CONTENT[:1234])
    ensure([of(BOOLQ, tmp_path)], tmp_path, upstream.url)
    assert fetched(tmp_path) == CONTENT
    assert [start for _, start in upstream.requests] == [1234]


def test_complete_leftover_is_only_renamed(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "test.json.incomplete").write_bytes(CONTENT)
    ensure([of(BOOLQ, tmp_path)], tmp_path, upstream.url)
    assert fetched(tmp_path) == CONTENT
    assert leftovers(tmp_path) == []


def test_leftover_longer_than_the_file_is_thrown_away(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "test.json.incomplete").write_bytes(CONTENT + b"more")
    ensure([of(BOOLQ, tmp_path)], tmp_path, upstream.url)
    assert fetched(tmp_path) == CONTENT


def test_server_without_ranges_starts_over(upstream: Upstream, tmp_path: Path) -> None:
    upstream.honours_ranges = False
    upstream.breaks_after = [100_000]
    ensure([of(BOOLQ, tmp_path)], tmp_path, upstream.url)
    assert fetched(tmp_path) == CONTENT
    assert [start for _, start in upstream.requests] == [0, 100_000]


def test_line_that_brings_nothing_is_given_up_but_kept_for_later(upstream: Upstream, tmp_path: Path) -> None:
    upstream.breaks_after = [1000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match=r"boolq/test\.json: missing, and http.*cannot be read.*data\.dir"):
        ensure([of(BOOLQ, tmp_path)], tmp_path, upstream.url)
    assert leftovers(tmp_path) == ["test.json.incomplete"]
    upstream.breaks_after = []
    ensure([of(BOOLQ, tmp_path)], tmp_path, upstream.url)
    assert fetched(tmp_path) == CONTENT


def of(dataset: Dataset, data_dir: Path, split: str = "test") -> DataSplit:
    return DataSplit(dataset, split, data_dir)


def with_remote(num_rows: int | None = None, sha256: str | None = None) -> Dataset:
    return replace(BOOLQ, remote={"test": RemoteFile("dataset/boolq/test.json", num_rows, sha256)})


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (with_remote(sha256="0" * 64), r"dataset/boolq/test\.json: is not the expected file.*data\.url"),
        (with_remote(num_rows=5), r"contains 3000 rows, expected 5; correct data\.url"),
    ],
)
def test_file_that_is_not_the_original_is_refused(
    upstream: Upstream, tmp_path: Path, file: Dataset, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ensure([of(file, tmp_path)], tmp_path, upstream.url)
    assert list((tmp_path / "boolq").iterdir()) == []


@pytest.mark.parametrize("content", [CONTENT, CONTENT.replace(b"\n", b"\r\n")], ids=["lf", "crlf"])
def test_known_sum_holds_for_either_kind_of_line_ends(upstream: Upstream, tmp_path: Path, content: bytes) -> None:
    upstream.files = {"/dataset/boolq/test.json": content}
    known = next(iter(download._digests(CONTENT)))
    ensure([of(with_remote(sha256=known), tmp_path)], tmp_path, upstream.url)
    assert fetched(tmp_path) == content


@pytest.mark.parametrize("page", [b"<html>Not here</html>", b'{"message": "x"}'])
def test_page_that_is_no_list_of_rows_is_refused(upstream: Upstream, tmp_path: Path, page: bytes) -> None:
    upstream.files = {"/dataset/boolq/test.json": page}
    with pytest.raises(UserError, match="contains no list of rows, expected 3000"):
        ensure([of(BOOLQ, tmp_path)], tmp_path, upstream.url)


def test_absent_page_says_where_it_looked_and_what_to_do(upstream: Upstream, tmp_path: Path) -> None:
    file = lookup("piqa")
    with pytest.raises(UserError) as caught:
        ensure([of(file, tmp_path)], tmp_path, upstream.url)
    message = str(caught.value)
    for part in (str(tmp_path / "piqa/test.json"), f"{upstream.url}/dataset/piqa/test.json", "HTTP 404", "data.dir"):
        assert part in message
    assert "\n" not in message


def test_unreachable_server_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(ConnectError\); try again with a connection") as caught:
        ensure([of(BOOLQ, tmp_path)], tmp_path, "http://127.0.0.1:1")
    assert "\n" not in str(caught.value)


def test_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"data\.dir=.*data: cannot be written"):
        ensure([of(BOOLQ, tmp_path / "data")], tmp_path / "data", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("bundled_choice", "validation", "it is not fetched"),
        ("gsm8k", "train", "only its test split can be fetched"),
        ("boolq", "validation", "only its test split can be fetched"),
        ("commonsense_15k", "test", "only its train and validation split can be fetched"),
    ],
)
def test_files_that_have_no_origin_must_be_provided(tmp_path: Path, name: str, split: str, message: str) -> None:
    with pytest.raises(
        UserError, match=rf"{name}/{split}\.json: no such file, and {message}; put a file there"
    ) as caught:
        ensure([of(lookup(name), tmp_path, split)], tmp_path, "http://127.0.0.1:1")
    assert "data.dir" in str(caught.value)


def test_bundled_files_come_with_the_package(tmp_path: Path) -> None:
    file = of(lookup("bundled_choice"), tmp_path)
    ensure([file], tmp_path, "http://127.0.0.1:1")
    assert file.path.is_file()
    assert not list(tmp_path.iterdir())


def test_processes_side_by_side_fetch_once(upstream: Upstream, tmp_path: Path) -> None:
    threads = [threading.Thread(target=ensure, args=([of(BOOLQ, tmp_path)], tmp_path, upstream.url)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(upstream.requests) == 1
    assert fetched(tmp_path) == CONTENT


def test_both_parts_of_a_divided_file_come_from_one_request(upstream: Upstream, tmp_path: Path) -> None:
    dataset = lookup("commonsense_15k")
    assert dataset.held_out is not None
    source = replace(dataset.held_out.source, num_rows=3000)
    dataset = replace(dataset, held_out=replace(dataset.held_out, source=source))
    upstream.files = {"/ft-training_set/commonsense_15k.json": CONTENT}
    ensure([of(dataset, tmp_path, split) for split in ("train", "validation")], tmp_path, upstream.url)
    assert len(upstream.requests) == 1
    folder = tmp_path / "commonsense_15k"
    assert sorted(path.name for path in folder.iterdir()) == ["split.json", "train.json", "validation.json"]
    assert [len(json.loads((folder / f"{split}.json").read_text())) for split in ("train", "validation")] == [2100, 900]


def test_a_file_without_end_is_given_up(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"test\.json: is longer than 1,000 bytes, more than any of these data sets"):
        ensure([DataSplit(BOOLQ, "test", tmp_path)], tmp_path, upstream.url)
    assert [path.name for path in (tmp_path / "boolq").iterdir()] == []


@pytest.mark.parametrize("is_there", [True, False])
def test_credentials_are_sent_and_never_shown(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_there: bool
) -> None:
    caplog.set_level("DEBUG")
    url = upstream.url.replace("://", "://me:hunter2@")
    if not is_there:
        upstream.files.clear()
        with pytest.raises(UserError) as caught:
            ensure([DataSplit(BOOLQ, "test", tmp_path)], tmp_path, url)
        assert "hunter2" not in str(caught.value)
    else:
        ensure([DataSplit(BOOLQ, "test", tmp_path)], tmp_path, url)
    assert upstream.authorizations == ["Basic " + base64.b64encode(b"me:hunter2").decode()]
    assert "hunter2" not in caplog.text
