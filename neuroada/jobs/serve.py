"""``job=serve``: answer requests with the base and with adapters, through OpenAI's interface."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.methods.saved import SavedNeuroAda, open_saved
from neuroada.runs.adapter_origin import unchanged_adapter
from neuroada.serving.served_models import ServedModels, name_of
from neuroada.serving.vllm_process import require_vllm, started
from neuroada.storage.scratch import scratch_folder

LOG_FILE = "vllm.log"
KEY_VARIABLE = "VLLM_API_KEY"
"""vLLM's own; a key on the command line can be seen by everyone on the machine."""


def serve(run: RunConfig, folder: Path) -> None:
    """Start vLLM with the base, and answer until a signal asks to stop.

    Raises:
        UserError, AdapterError: An adapter cannot be read or switched, belongs to another base, vLLM is not there, or
            the port is taken.
        FailureElsewhere: vLLM ended by itself.
    """
    server_library = _library()
    adapters = [_checked(Path(path), run) for path in run.adapter]
    names = run.serve.names or [_name_of(path, folder) for path, folder in zip(run.adapter, adapters, strict=True)]
    models = ServedModels.of(run.model.name, run.model.name_or_path, adapters, names)
    python = require_vllm(run.serve.python)
    console = Console(highlight=False)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    with ExitStack() as held:
        listening = held.enter_context(server_library.bound(run.serve.host, run.serve.port))
        options = _options(run, held.enter_context(scratch_folder()))
        process = held.enter_context(started(python, run.model.name_or_path, options, folder / LOG_FILE))
        say(f"starting vLLM; it writes to {folder / LOG_FILE}")
        server = server_library.Server(run.serve, models, _keys(run), run.allow_precision, say)
        server.run(process, listening)
    say("stopped")


def _library() -> Any:
    try:
        from neuroada.serving import server
    except ImportError as error:
        raise UserError(f"job=serve: {error.name} is not installed; pip install 'neuroada[serve]'") from error
    return server


def _checked(path: Path, run: RunConfig) -> Path:
    """The folder of an adapter that can be switched, as far as its files say."""
    directory = unchanged_adapter(path).absolute()
    saved = open_saved(directory, run.allow_precision)
    if not isinstance(saved, SavedNeuroAda):
        raise UserError(
            f"adapter={path}: holds no NeuroAda bypasses, which job=serve switches; vLLM serves LoRA adapters itself "
            "(vllm serve --enable-lora), and job=merge makes a checkpoint of any other"
        )
    if saved.stored.whole:
        raise UserError(
            f"adapter={path}: trains whole modules or biases, which are not switched; job=merge makes a checkpoint of "
            "it, which vllm serve takes"
        )
    return directory


def _name_of(path: str, folder: Path) -> str:
    """That of its repository on the hub, or of its run or folder here."""
    return name_of(folder) if Path(path).exists() else path.rpartition("/")[2].partition("@")[0]


def _keys(run: RunConfig) -> list[str]:
    key = run.serve.api_key or os.environ.get(KEY_VARIABLE)
    return [key] if key else []


def _options(run: RunConfig, scratch: Path) -> Mapping[str, Any]:
    """vLLM's options that follow from the run, and those given with ``serve.engine``, which count more."""
    template = None
    if run.data.chat_template is not None:
        template = scratch / "chat_template.jinja"
        template.write_text(run.data.chat_template, encoding="utf-8")
    return {
        "dtype": run.model.dtype,
        "revision": run.model.revision,
        "chat_template": template,
        **(run.serve.engine or {}),
    }
