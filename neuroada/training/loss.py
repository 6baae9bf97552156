"""The training loss of one micro-batch, normalised over the whole optimizer step.

Shapes: B rows, T tokens, S selected positions, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from neuroada.tasks.batches import IGNORED, TrainingBatch


def summed_loss(model: PreTrainedModel, batch: TrainingBatch) -> tuple[Tensor, int]:
    """Next-token cross-entropy summed over the labelled tokens of a micro-batch, in fp32, and their number.

    Logits are made only at positions where some row has a label: the prompts of multiple-choice questions are long and
    their answers short, and a vocabulary is wide.
    """
    targets_BT = batch["labels"][:, 1:]
    positions_S = (targets_BT != IGNORED).any(dim=0).nonzero().squeeze(1)
    if positions_S.numel() == 0:  # a filler micro-batch, or completions that were cut off
        positions_S = torch.zeros(1, dtype=torch.long, device=targets_BT.device)
    logits_BSV = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
        logits_to_keep=positions_S,
    ).logits
    targets_BS = targets_BT[:, positions_S]
    loss = F.cross_entropy(
        logits_BSV.float().flatten(0, 1), targets_BS.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return loss, int((targets_BS != IGNORED).sum())
