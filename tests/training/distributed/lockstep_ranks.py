"""What the two ranks of test_sharded.py do with unequal shares: ``torchrun ... lockstep_ranks.py BACKBONE OUT``."""

import json
import sys
from pathlib import Path

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from neuroada.methods.untrained import FrozenBase
from neuroada.training.distributed.fsdp import Lockstep, ShardedStrategy


class Uneven(lightning.LightningModule):
    """Rank 0 has one forward to do, rank 1 four."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.model = AutoModelForCausalLM.from_pretrained(backbone)
        self.sums: dict[int, float] = {}

    def configure_model(self) -> None:
        assert isinstance(self.trainer.strategy, ShardedStrategy)
        self.trainer.strategy.shard(self.model, FrozenBase(self.model))

    def test_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(10 * self.global_rank, 10 * self.global_rank + 1 + 3 * self.global_rank))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        with torch.inference_mode():
            self.sums[int(batch)] = float(self.model(batch[None]).logits.double().sum())

    def on_test_epoch_end(self) -> None:
        shares: list[dict[int, float]] = [{}, {}]
        torch.distributed.all_gather_object(shares, self.sums)
        self.sums = shares[0] | shares[1]


def main() -> None:
    module = Uneven(sys.argv[1])
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy=ShardedStrategy(), callbacks=[Lockstep()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.test(module, verbose=False)
    if trainer.is_global_zero:
        Path(sys.argv[2]).write_text(json.dumps(module.sums))


if __name__ == "__main__":
    main()
