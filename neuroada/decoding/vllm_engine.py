"""vLLM on the checkpoint that a model was loaded from; it reads the weights itself, so adapters must be merged first.

vLLM requires its own versions of torch and transformers and is best installed into a separate environment.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from neuroada.backbones.limits import context_length
from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.decoding.answers import end_tokens

SHARE_OF_FREE_MEMORY = 0.85
"""Share of free GPU memory for vLLM's weights and cache; the rest is for what it does not count."""


def library() -> Any:
    """The vllm package.

    Raises:
        UserError: It is not installed, or does not work in this environment.
    """
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            f"evaluation.decoding=vllm: {error}; install vllm into a separate environment, or use "
            "evaluation.decoding=auto"
        ) from error
    return vllm


def start_engine(model: PreTrainedModel, longest: int) -> Any:
    """A ``vllm.LLM`` of the model's checkpoint, in the model's precision.

    Args:
        model: The backbone.
        longest: Tokens of the longest prompt with its answer. By itself, vLLM would plan its cache for the whole
            context of the model, and refuse to start where 128k tokens do not fit.

    Raises:
        UserError: vLLM is not installed, or cannot serve this checkpoint.
    """
    try:
        return library().LLM(
            model=model.name_or_path,
            revision=getattr(model.config, "_commit_hash", None),
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=min(longest, context_length(model) or longest),
            **_memory(model.device),
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"evaluation.decoding=vllm: {model.name_or_path}: {first_line(error)}") from error


def _memory(device: torch.device) -> dict[str, float]:
    """The engine gets a share of the free memory: the backbone that Lightning holds is on the same GPU."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"gpu_memory_utilization": SHARE_OF_FREE_MEMORY * free / total}


class VllmDecoder:
    """Greedy decoding of the prompts of one benchmark."""

    def __init__(self, engine: Any, config: GenerationConfig) -> None:
        self._engine = engine
        self._ends = end_tokens(config)

    def decode(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """The new tokens of each prompt: at most ``limits`` of them, ending with the end token if it is reached."""
        parameters = library().SamplingParams
        fixed = {"temperature": 0.0, "stop_token_ids": self._ends, "detokenize": False}
        settings = [parameters(max_tokens=limit, **fixed) for limit in limits]
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self._engine.generate(asked, settings, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]
