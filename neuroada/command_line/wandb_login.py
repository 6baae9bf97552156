"""Whether Weights & Biases would know who logs: without a login it fails after the backbone is loaded."""

import netrc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from neuroada.config.errors import UserError

_NOT_ONLINE = ("offline", "disabled", "dryrun")
_KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


def require_login(loggers: Mapping[str, Any] | None) -> None:
    """Check the loggers of a run; on a terminal, wandb asks for a key itself.

    Raises:
        UserError: One of them logs to W&B's server, and there is no login.
    """
    for name, node in (loggers or {}).items():
        if node and str(node.get("_target_", "")).endswith(".WandbLogger") and _is_online(node) and not _has_login():
            raise UserError(
                f"logger.{name}: no W&B login here; set WANDB_API_KEY, run `wandb login`, or log to a folder with "
                f"logger.{name}.offline=true"
            )


def _is_online(node: Mapping[str, Any]) -> bool:
    return not node.get("offline") and os.environ.get("WANDB_MODE") not in _NOT_ONLINE


def _has_login() -> bool:
    if sys.stdin.isatty() or any(os.environ.get(key) for key in _KEYS):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    files = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    return any(_names(Path(file).expanduser(), host) for file in files if file)


def _names(file: Path, host: str) -> bool:
    try:
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
