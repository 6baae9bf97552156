"""The package of a logger is looked for before anything is loaded."""

import importlib.util
from typing import Any

import pytest

from neuroada.command_line.logger_packages import require_packages
from neuroada.config.errors import UserError
from tests.quick_compose import quick_compose


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "mlflow"])
def test_a_missing_package_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loggers: Any = quick_compose([f"logger={name}"])["logger"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"^logger\.{name}: needs {name}; pip install 'neuroada\[{name}\]', or leave"):
        require_packages(loggers)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    require_packages(loggers)


def test_other_loggers_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_packages({"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger"}, "wandb": None})
    require_packages(None)
