"""An adapted model as a model type of lm-evaluation-harness; ``neuroada.integrations.lm_eval`` registers it."""

from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.schema import ModelConfig
from neuroada.decoding.answer_ends import answer_ends
from neuroada.methods.saved import open_saved
from neuroada.runs.adapter_origin import AdapterOrigin
from neuroada.runs.recorded_files import refuse_changed_adapter


class NeuroAdaLM(HFLM):
    """The harness's Hugging Face model with an adapter attached in place, at the same speed.

    Args:
        adapter: A run folder or adapter folder.
        pretrained: The base model; by default the one that the adapter names.
        revision: Its revision; by default the one that the adapter names.
        dtype: float32, bfloat16, or auto (bfloat16 on a GPU, float32 on a CPU).
        device: For example ``cuda:0``; by default a GPU if there is one, and without one always the CPU.
        settings: Other keywords of ``HFLM``, such as ``batch_size``.

    Raises:
        UserError, AdapterError: The adapter or its base cannot be read, or do not belong together.
    """

    def __init__(
        self,
        adapter: str,
        pretrained: str | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        **settings: Any,
    ) -> None:
        origin = AdapterOrigin.read(Path(adapter).expanduser())
        if objective := origin.sections.get("task", {}).get("objective"):
            raise UserError(f"adapter={adapter}: task.objective={objective} writes no text; score it with job=evaluate")
        refuse_changed_adapter(origin.directory)
        saved = open_saved(origin.directory)
        config = ModelConfig(
            name="harness",
            name_or_path=pretrained or origin.header.get("base_model_name_or_path") or "",
            revision=revision or (None if pretrained else origin.header.get("revision")),
            dtype=dtype,
            quantization=None if pretrained else origin.sections["model"].get("quantization"),
        )
        place = _available(device)
        model = loading.load_model(config, place)
        saved.attach(model)
        tokenizer: Any = loading.load_tokenizer(config)  # the harness has a narrower type
        ends = answer_ends(config, tokenizer)
        if ends and model.generation_config is not None:
            model.generation_config.eos_token_id = ends  # where the scoring of a run ends an answer, too
        super().__init__(pretrained=model, tokenizer=tokenizer, **settings)


def _available(device: str | None) -> torch.device:
    """The device; the harness asks for a GPU by default, also where there is none."""
    has_gpu = torch.cuda.is_available()
    if device is None or (device.startswith("cuda") and not has_gpu):
        return torch.device("cuda" if has_gpu else "cpu")
    return torch.device(device)
