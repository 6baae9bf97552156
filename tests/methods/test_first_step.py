"""What no gradient reaches is named for the other methods too, in a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from neuroada.config.schema import RunConfig
from neuroada.jobs.finetune import finetune


@pytest.mark.parametrize("method", ["neuroada", "lora"])
def test_layers_that_are_read_without_being_called_are_named(
    make_run: Callable[..., RunConfig], backbone: Path, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    torch.manual_seed(0)
    MambaForCausalLM(MambaConfig(vocab_size=420, **sizes, bos_token_id=0, eos_token_id=1)).save_pretrained(
        tmp_path / "m"
    )
    for path in backbone.glob("tokenizer*"):
        (tmp_path / "m" / path.name).write_bytes(path.read_bytes())
    settings = ["model.target_modules=[in_proj,dt_proj]", "data.batching=padded", "trainer.max_steps=2"]
    run = make_run(f"method={method}", f"model.name_or_path={tmp_path / 'm'}", *settings, "evaluation.limit=1")
    finetune(run, tmp_path / "run")
    (message,) = [line for line in caplog.messages if "got no gradient in the first optimizer step" in line]
    assert "backbone.layers.0.mixer.dt_proj" in message
    assert "in_proj" not in message
