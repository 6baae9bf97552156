"""A stand-in for the Hugging Face Hub: the part of its HTTP API that creating, committing and fetching need.

It answers huggingface_hub's real requests over a real socket. Paths and codes are those of the Hub, as that library
sends and reads them; files with weights go by the LFS protocol, all others within the commit.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import transformers.utils.hub
import yaml
from huggingface_hub import constants, hf_api

TOKEN = "hf_right"
LARGE = (".safetensors", ".bin")


@dataclass
class Repository:
    """One repository: its commits, newest last, and where its branches are."""

    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    branches: dict[str, int] = field(default_factory=lambda: {"main": 0})

    def number(self, revision: str) -> int | None:
        if revision in self.branches:
            return self.branches[revision]
        found = [number for number in range(len(self.commits)) if sha(number) == revision]
        return found[0] if found else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        number = self.number(revision)
        assert number is not None
        return self.commits[number]


def sha(number: int) -> str:
    """The hash of a commit."""
    return f"{number:040x}"


class StandInHub(ThreadingHTTPServer):
    """The server, with everything that it was sent.

    Attributes:
        repositories: By ``<owner>/<name>``.
        objects: Large files by SHA-256.
        requests: Method and path of every request.
        sent: Everything that clients sent, headers included, as one text.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.sent = b""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self, cache: Path, token: str | None = TOKEN) -> dict[str, str]:
        """What a client in a process of its own needs to find it, with a cache of its own."""
        given = {"HF_ENDPOINT": self.address, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return {**given, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "HF_TOKEN": token or ""}


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """The server while a ``with`` block runs."""
    server = StandInHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """The server, which huggingface_hub in this process takes for the Hub, with a cache and a token of its own.

    That library reads its settings from the environment once, as it is imported.
    """
    with stand_in_hub() as server:
        settings = {
            "ENDPOINT": server.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hub_cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no_token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", server.address)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)  # one that knows another address
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's output."""

    def do_GET(self) -> None:
        self._read()
        parts = self._parts()
        if len(parts) > 3 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        if parts[:2] != ["api", "models"] or len(parts) < 4:
            return self._error(404, "EntryNotFound")
        repo_id, kind = "/".join(parts[2:4]), parts[4] if len(parts) > 4 else "revision"
        revision = parts[5] if len(parts) > 5 else "main"
        repository = self._visible(repo_id, revision)
        if repository is None:
            return None
        if kind == "tree":
            return self._json([_entry(path, content) for path, content in repository.files(revision).items()])
        siblings = [{"rfilename": path} for path in repository.files(revision)]
        number = repository.number(revision)
        assert number is not None
        return self._json(
            {"id": repo_id, "sha": sha(number), "siblings": siblings, "private": repository.private, "tags": []}
        )

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self._read()
        parts = self._parts()
        if self._has_wrong_token():
            return self._error(401, None, "Invalid credentials in Authorization header")
        if parts == ["api", "validate-yaml"]:
            return self._validate(json.loads(body)["content"])
        if self.headers.get("Authorization") is None:
            return self._error(401, None, "Invalid username or password.")
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts[-1] == "batch":
            return self._batch(json.loads(body))
        repo_id = "/".join(parts[2:4])
        if repo_id not in self.server.repositories:
            return self._error(404, "RepoNotFound", "Repository not found")
        if parts[4] == "preupload":
            files = [{"path": one["path"], **_mode(one["path"])} for one in json.loads(body)["files"]]
            return self._json({"files": files})
        if parts[4] == "branch":
            return self._branch(self.server.repositories[repo_id], parts[5])
        return self._commit(repo_id, parts[5], [json.loads(line) for line in body.splitlines() if line])

    def do_PUT(self) -> None:
        content = self._read()
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self._json({})

    def _create(self, asked: dict[str, Any]) -> None:
        repo_id = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if repo_id.startswith("others/"):
            return self._error(403, None, "You don't have the rights to create a model under the namespace others")
        address = {"url": f"{self.server.address}/{repo_id}", "id": repo_id}
        if repo_id in self.server.repositories:
            return self._json(address, status=409)
        self.server.repositories[repo_id] = Repository(
            private=asked.get("visibility") == "private" or bool(asked.get("private"))  # new and old requests
        )
        return self._json(address)

    def _branch(self, repository: Repository, name: str) -> None:
        if name in repository.branches:
            return self._error(409, None, "Reference already exists")
        repository.branches[name] = repository.branches["main"]
        return self._json({})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.address}/large/{one['oid']}"}}}
            for one in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repo_id: str, branch: str, lines: list[dict[str, Any]]) -> None:
        repository = self.server.repositories[repo_id]
        files = dict(repository.files(branch))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        repository.commits.append(files)
        number = len(repository.commits) - 1
        pull_request = {"pullRequestUrl": f"{self.server.address}/{repo_id}/discussions/1"}
        is_pull_request = "create_pr=1" in urlsplit(self.path).query
        repository.branches["refs/pr/1" if is_pull_request else branch] = number
        address = {"commitUrl": f"{self.server.address}/{repo_id}/commit/{sha(number)}", "commitOid": sha(number)}
        self._json({**address, **(pull_request if is_pull_request else {})})

    def _validate(self, card: str) -> None:
        """The Hub reads the metadata, and refuses names that cannot be of a base."""
        try:
            data = yaml.safe_load(card.split("---")[1])
        except (yaml.YAMLError, IndexError) as error:
            return self._json({"errors": [{"message": f"no metadata ({error})"}], "warnings": []}, status=400)
        base = str(data.get("base_model", "owner/name"))
        errors = [{"message": f'"base_model" {base} is no model id'}] if base.startswith("/") else []
        return self._json({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def _file(self, repo_id: str, revision: str, path: str) -> None:
        repository = self._visible(repo_id, revision)
        if repository is None:
            return None
        content = repository.files(revision).get(path)
        if content is None:
            return self._error(404, "EntryNotFound")
        number = repository.number(revision)
        assert number is not None
        headers = {"X-Repo-Commit": sha(number), "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return self._answer(200, content, headers)

    def _visible(self, repo_id: str, revision: str) -> Repository | None:
        """A repository that the client may see at this revision; None after answering why not."""
        repository = self.server.repositories.get(repo_id)
        if self._has_wrong_token():
            self._error(401, None, "Invalid credentials in Authorization header")
            return None
        if repository is None or (repository.private and self.headers.get("Authorization") is None):
            self._error(401 if self.headers.get("Authorization") is None else 404, "RepoNotFound")
            return None
        if repository.number(revision) is None:
            self._error(404, "RevisionNotFound")
            return None
        return repository

    def _has_wrong_token(self) -> bool:
        return self.headers.get("Authorization") not in (None, f"Bearer {TOKEN}")

    def _parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _read(self) -> bytes:
        content = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self._length()
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.sent += self.path.encode() + str(self.headers).encode() + content
        return content

    def _length(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str | None, message: str = "") -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._answer(status, json.dumps({"error": message}).encode(), headers)

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _mode(path: str) -> dict[str, Any]:
    return {"uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    large = {"lfs": {"oid": digest, "size": len(content), "pointerSize": 130}} if path.endswith(LARGE) else {}
    return {"type": "file", "path": path, "size": len(content), "oid": digest[:40], **large}
