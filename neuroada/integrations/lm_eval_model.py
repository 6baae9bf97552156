"""An adapted model as a model type of lm-evaluation-harness; made known to it by ``neuroada.integrations.lm_eval``."""

from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from neuroada.backbones import loading
from neuroada.config.schema import ModelConfig
from neuroada.methods.saved import open_saved
from neuroada.runs.adapter_origin import AdapterOrigin


class NeuroAdaLM(HFLM):
    """The harness's Hugging Face model with an adapter in place, so that it is exactly as fast.

    Args:
        adapter: A run folder or adapter folder.
        pretrained: The base; the one that the adapter names by default.
        revision: Of the base, likewise.
        dtype: float32, bfloat16, or auto (bfloat16 on a GPU, float32 on a CPU).
        device: Such as ``cuda:0``; a GPU if there is one by default.
        settings: Further keywords of ``HFLM``, such as ``batch_size``.

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
        origin = AdapterOrigin.read(Path(adapter))
        saved = open_saved(origin.directory)
        config = ModelConfig(
            name="harness",
            name_or_path=pretrained or origin.header.get("base_model_name_or_path") or "",
            revision=revision or (None if pretrained else origin.header.get("revision")),
            dtype=dtype,
        )
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model = loading.load_model(config, place)
        saved.attach(model)
        tokenizer: Any = loading.load_tokenizer(config)  # the harness has a narrower type
        super().__init__(pretrained=model, tokenizer=tokenizer, **settings)
