"""The Hugging Face Trainer and TRL train it like any PeftModel."""

import os
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from neuroada.peft import NeuroAdaConfig

from ..sparse.conftest import bits, logits, make_llama

IDS = torch.randint(97, (8, 12), generator=torch.Generator().manual_seed(1))
ROWS = [{"input_ids": row, "labels": row} for row in IDS]
CONFIG = {"top_k": 2, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}


def arguments(folder: Path, **settings: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "learning_rate": 3e-2,
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "logging_steps": 1,
        "save_steps": 3,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **settings,
    }


def trainer(folder: Path, **settings: Any) -> Trainer:
    model = peft.get_peft_model(make_llama(), NeuroAdaConfig(**CONFIG))
    return Trainer(model=model, args=TrainingArguments(**arguments(folder, **settings)), train_dataset=ROWS)


def losses(trained: Trainer) -> list[float]:
    return [row["loss"] for row in trained.state.log_history if "loss" in row]


def test_the_trainer_trains_saves_and_resumes(tmp_path: Path) -> None:
    batch: dict[str, Tensor] = {"input_ids": IDS}
    whole = trainer(tmp_path / "whole")
    whole.train()
    assert losses(whole)[-1] < losses(whole)[0] - 0.1
    whole.save_model(str(tmp_path / "adapter"))
    loaded = peft.PeftModel.from_pretrained(make_llama(), tmp_path / "adapter")
    assert logits(loaded, batch).equal(logits(whole.model.eval(), batch))
    assert bits(whole.model.unload()) == bits(make_llama())

    resumed = trainer(tmp_path / "whole")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert losses(resumed)[-1] == losses(whole)[-1]
    assert logits(resumed.model.eval(), batch).equal(logits(loaded, batch))


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain, checkpointed = trainer(tmp_path), trainer(tmp_path, gradient_checkpointing=True)
    for one in (plain, checkpointed):
        one.train()
    assert losses(checkpointed) == pytest.approx(losses(plain), abs=1e-6)


@pytest.mark.slow
def test_trl_trains_it(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    trl = pytest.importorskip("trl")
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    tokenizer.pad_token = tokenizer.eos_token
    rows = Dataset.from_list([{"prompt": f"{n} plus 1 is", "completion": f" {n + 1}"} for n in range(16)])
    sft = trl.SFTTrainer(
        model=make_llama(vocab_size=len(tokenizer)),
        args=trl.SFTConfig(**arguments(tmp_path / "sft", bf16=False)),  # else it wraps the model's forward
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=NeuroAdaConfig(**CONFIG),
    )
    sft.train()
    assert losses(sft)[-1] < losses(sft)[0]
    sft.save_model(str(tmp_path / "adapter"))
    batch = {"input_ids": IDS}
    loaded = peft.PeftModel.from_pretrained(make_llama(vocab_size=len(tokenizer)), tmp_path / "adapter")
    assert logits(loaded, batch).equal(logits(sft.model.eval(), batch))
