"""The training loss of one micro-batch; logits are computed for labelled tokens only.

Prompts of multiple-choice questions are long, answers short and vocabularies large. So hidden states are selected
before the output layer, and logits exist for only one chunk of labels at a time.

Shapes: B rows, T tokens, N labelled tokens, C of them in a chunk, S selected positions, H hidden size, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from neuroada.backbones.packed_attention import attends_by_example, of_examples
from neuroada.backbones.probes import logits_are_plain
from neuroada.data.packing import IGNORED, TrainingBatch

_CHUNK_LOGITS = 2**25
"""Logits that exist at a time: 128 MiB in fp32."""


class SummedLoss:
    """Next-token cross-entropy summed over the labelled tokens of a micro-batch, in fp32, and their number."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def __call__(self, batch: TrainingBatch) -> tuple[Tensor, int]:
        return self._summed(batch)

    @torch.no_grad()
    def by_example(self, batch: TrainingBatch) -> Tensor:
        """(E,) fp32 of each example of a micro-batch, packed or padded, summed over its labelled tokens."""
        counts_E = _labels_by_example(batch)
        losses_N = self._of_labels(batch)
        return torch.segment_reduce(losses_N, "sum", lengths=counts_E.to(losses_N.device))

    def _of_labels(self, batch: TrainingBatch) -> Tensor:
        """(N,) fp32 of each labelled token, in the order of the batch."""
        if not logits_are_plain(self._model):
            logits_BSV, targets_BS = self._logits(batch)
            losses_BS = F.cross_entropy(
                logits_BSV.float().transpose(1, 2), targets_BS, ignore_index=IGNORED, reduction="none"
            )
            return losses_BS[targets_BS != IGNORED]
        hidden_NH, targets_N, head = *self._hidden_states(batch), self._model.get_output_embeddings()
        chunk = _chunk_of(head)
        return torch.cat(
            [
                F.cross_entropy(head(hidden_CH).float(), targets_C, reduction="none")
                for hidden_CH, targets_C in zip(hidden_NH.split(chunk), targets_N.split(chunk), strict=True)
            ]
        )

    @functools.cached_property
    def _summed(self) -> Callable[[TrainingBatch], tuple[Tensor, int]]:
        # Gemma caps its logits, Cohere and Granite scale them: there the model's own forward must compute them.
        return self._from_hidden_states if logits_are_plain(self._model) else self._from_logits

    def _from_hidden_states(self, batch: TrainingBatch) -> tuple[Tensor, int]:
        hidden_NH, targets_N = self._hidden_states(batch)
        return summed_cross_entropy(hidden_NH, targets_N, self._model.get_output_embeddings()), len(targets_N)

    def _hidden_states(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """(N, H) states that predict a labelled token, and the (N,) tokens."""
        places_N = batch["label_places"]
        hidden_BTH = self._model.get_decoder()(**self._inputs(batch)).last_hidden_state
        targets_N = batch["labels"].flatten().index_select(0, places_N + 1)
        return hidden_BTH.flatten(0, 1).index_select(0, places_N), targets_N

    def _logits(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """(B, S, V) logits and (B, S) targets at the positions where any row has a label; for one packed row, exactly
        the labelled positions.
        """
        positions_S = batch["label_columns"]
        logits_BSV = self._model(**self._inputs(batch), logits_to_keep=positions_S).logits
        return logits_BSV, F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).index_select(1, positions_S)

    def _from_logits(self, batch: TrainingBatch) -> tuple[Tensor, int]:
        logits_BSV, targets_BS = self._logits(batch)
        loss = F.cross_entropy(
            logits_BSV.float().flatten(0, 1), targets_BS.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss, len(batch["label_places"])

    def _inputs(self, batch: TrainingBatch) -> dict[str, Any]:
        """The decoder's inputs; mask or positions, whichever the batch has."""
        given: dict[str, Any] = {
            key: batch[key] for key in ("attention_mask", "position_ids") if batch[key] is not None
        }
        lengths = batch["example_lengths"]
        if lengths is not None and attends_by_example(self._model):
            given |= of_examples(lengths, batch["input_ids"].device)
        return {"input_ids": batch["input_ids"], **given, "use_cache": False}


def _labels_by_example(batch: TrainingBatch) -> Tensor:
    """(E,) labelled tokens of each example: of each row, or of each part of one packed row."""
    lengths = batch["example_lengths"]
    if lengths is None:
        return (batch["labels"][:, 1:] != IGNORED).sum(dim=1)
    ends_E = torch.tensor(lengths).cumsum(0)
    example_N = torch.searchsorted(ends_E, batch["label_places"].cpu(), right=True)
    return torch.bincount(example_N, minlength=len(lengths))


def _chunk_of(head: nn.Module) -> int:
    """Labels whose logits exist at a time."""
    assert isinstance(head.weight, Tensor)  # (V, H)
    return max(1, _CHUNK_LOGITS // len(head.weight))


def summed_cross_entropy(hidden_NH: Tensor, targets_N: Tensor, head: nn.Module) -> Tensor:
    """Cross-entropy of ``head(hidden)`` in fp32, summed; () fp32. Differentiable in the states and in the head."""
    if not torch.is_grad_enabled():  # the head's parameters may still require gradients
        hidden_NH, trained = hidden_NH.detach(), list[nn.Parameter]()
    else:
        trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden_NH, targets_N, head, *trained)
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes gradients chunk by chunk in the forward pass, so that logits are neither kept nor recomputed."""

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, targets_N: Tensor, head: nn.Module, *trained: Tensor) -> Tensor:
        chunk = _chunk_of(head)
        sources = (hidden_NH, *trained)
        grads = [torch.zeros_like(source) for source in sources] if any(ctx.needs_input_grad) else []
        loss = torch.zeros((), dtype=torch.float32, device=hidden_NH.device)
        for start in range(0, len(hidden_NH), chunk):
            hidden_CH = hidden_NH[start : start + chunk].detach().requires_grad_()
            with torch.enable_grad():
                targets_C = targets_N[start : start + chunk]
                chunk_loss = F.cross_entropy(head(hidden_CH).float(), targets_C, reduction="sum")
            loss += chunk_loss.detach()
            if grads:
                grad_CH, *grads_trained = torch.autograd.grad(chunk_loss, (hidden_CH, *trained))
                grads[0][start : start + chunk] = grad_CH
                for grad, part in zip(grads[1:], grads_trained, strict=True):
                    grad += part
        ctx.save_for_backward(*grads)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_NH, *grads_trained = (grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors)
        return grad_NH, None, None, *grads_trained
