"""Adapters on the Hugging Face Hub: fetched by their id, and folders pushed to a repository.

Everything over the network is done by huggingface_hub, which is imported when it is needed: it reads the token, the
endpoint and the cache from where its own users expect them (``HF_TOKEN`` or ``hf auth login``, ``HF_ENDPOINT``,
``HF_HOME``).
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from neuroada.sparse.errors import AdapterError

FETCHED = ("adapter_config.json", "adapter_model.safetensors", "prompts.json")
"""What is fetched of a repository: plain values and tensors; nothing that could run."""
_PART = r"\w[\w.-]*"
_HUB_ID = re.compile(rf"(?P<repo>{_PART}/{_PART})(@(?P<revision>[^\s@]+))?")
_HUB_MODEL = re.compile(rf"{_PART}(/{_PART}(/{_PART}\.gguf)?)?")
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class _Attempt:
    """What messages say of fetching or pushing where they differ.

    Attributes:
        found: What is known so far; before the reason why it goes no further.
        offline: The reason, without a network on purpose.
        otherwise: A way out, without a network.
    """

    found: str
    offline: str
    otherwise: str


_TO_FETCH = _Attempt(
    "no such folder here, and ", "it is not in the cache, and ", ", or fetch it where there is one and give the folder"
)
_TO_PUSH = _Attempt("", "", ", and push again")
_REQUEST_LINES = ("httpx", "httpx2")
"""Loggers that have a line for every request."""


def is_hub_id(place: str) -> bool:
    """Whether a text can be a repository, ``<owner>/<name>``, or one at a revision, ``<owner>/<name>@<revision>``."""
    return _HUB_ID.fullmatch(place) is not None


def is_hub_model(name: str) -> bool:
    """Whether others can load a base by this name: it looks like one of the hub, and is no folder here."""
    return _HUB_MODEL.fullmatch(name) is not None and not Path(name).exists()


def fetched(hub_id: str) -> Path:
    """The adapter folder in huggingface_hub's cache, fetched if it is not there or has changed.

    Args:
        hub_id: As ``is_hub_id`` takes it; without a revision the newest of ``main``.

    Raises:
        AdapterError: It is no repository that the user may read, holds no adapter, or cannot be reached.
    """
    matched = _HUB_ID.fullmatch(hub_id)
    if matched is None:
        raise AdapterError(f"{hub_id}: no repository of the hub has such a name; give <owner>/<name>")
    snapshot_download = _library().snapshot_download
    with _in_one_line(hub_id, _TO_FETCH):
        folder = snapshot_download(
            matched["repo"], revision=matched["revision"], allow_patterns=list(FETCHED), library_name="neuroada"
        )
    if not (Path(folder) / FETCHED[0]).is_file():
        raise AdapterError(f"{hub_id}: the repository has no {FETCHED[0]} at its top; give one that holds an adapter")
    return Path(folder)


def pushed(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    replaces: Sequence[str] = (),
) -> str:
    """Upload a folder in one commit, to a repository that is made if it is missing; the address of the commit.

    Args:
        folder: All of its files are uploaded.
        repo_id: ``<owner>/<name>``.
        private: Of a new repository; None means what the account's default is.
        token: As in huggingface_hub: None means the saved one.
        revision: A branch, which is made if it is missing; None means ``main``.
        create_pr: Whether to open a pull request instead of committing.
        commit_message: None means one that names this package.
        replaces: Patterns of files that are removed where the folder has none of that name.

    Raises:
        AdapterError: The hub cannot be reached or refuses it.
    """
    library = _library()
    api = library.HfApi(token=token, library_name="neuroada")
    with _in_one_line(repo_id, _TO_PUSH):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or "Upload adapter with neuroada",
            revision=revision,
            create_pr=create_pr,
            delete_patterns=list(replaces) or None,
        )
    return str(commit.pr_url or commit.commit_url)


def has_file(repo_id: str, name: str, token: str | bool | None = None, revision: str | None = None) -> bool:
    """Whether a repository is there and has a file.

    Raises:
        AdapterError: The hub cannot be reached or refuses it.
    """
    api = _library().HfApi(token=token, library_name="neuroada")
    with _in_one_line(repo_id, _TO_PUSH):
        return bool(api.file_exists(repo_id, name, revision=revision))


def _library() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise AdapterError("the hub needs huggingface_hub; pip install huggingface_hub") from error
    return huggingface_hub


@contextmanager
def _in_one_line(repo_id: str, attempt: _Attempt) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line that says what to do; nothing is said of single requests."""
    from huggingface_hub import errors

    try:
        with _without_request_lines():
            yield
    except errors.RevisionNotFoundError as error:
        raise AdapterError(f"{repo_id}: the repository has no such revision; give a branch, tag or commit") from error
    except errors.GatedRepoError as error:
        raise AdapterError(f"{repo_id}: is gated; ask for access on its page, and {_LOG_IN}") from error
    except errors.RepositoryNotFoundError as error:
        raise AdapterError(
            f"{repo_id}: {attempt.found}the hub has no such repository that you may see; check the name or, if it is "
            f"private, {_LOG_IN}"
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise AdapterError(f"{repo_id}: the hub needs a token; {_LOG_IN}") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise AdapterError(f"{repo_id}: {attempt.found}{_unreachable(error, attempt)}") from error
    except errors.HFValidationError as error:
        raise AdapterError(f"{repo_id}: no repository of the hub can have this name; give <owner>/<name>") from error
    except errors.HfHubHTTPError as error:
        raise AdapterError(f"{repo_id}: {_refusal(error.response.status_code, error.server_message)}") from error
    except errors.HTTPError as error:  # of the HTTP library: no connection, no answer in time
        raise AdapterError(f"{repo_id}: {attempt.found}{_unreachable(error, attempt)}") from error
    except (ValueError, RuntimeError) as error:  # metadata that the hub does not take, a large file that broke off
        raise AdapterError(f"{repo_id}: {' '.join(str(error).split())}; push again, or see the cause") from error


def _refusal(status: int, said: str | None) -> str:
    if status == 401:
        return f"the token is missing or wrong (401); {_LOG_IN}"
    if status == 403:
        return f"the token may not write there (403); give a repository of yours, or another token: {_LOG_IN}"
    reason = " ".join((said or "it gives no reason").split())
    return f"the hub answers {status} ({reason}); try again, or see https://status.huggingface.co"


def _unreachable(error: Exception, attempt: _Attempt) -> str:
    if "OfflineModeIsEnabled" in (type(error).__name__, type(error.__cause__).__name__):
        return f"{attempt.offline}HF_HUB_OFFLINE keeps from asking the hub; unset it"
    return f"the hub cannot be reached; check the network{attempt.otherwise}"


@contextmanager
def _without_request_lines() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _REQUEST_LINES]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
