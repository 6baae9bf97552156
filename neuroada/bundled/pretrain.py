"""Train the bundled backbone: `nice python -m neuroada.bundled.pretrain` (about 10 minutes on one idle CPU core).

A plain causal language model on the documents of corpus.py, which do not contain the data sets' format.
"""

import argparse
import logging
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from rich.logging import RichHandler
from rich.progress import track
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from neuroada.bundled import MODEL_DIR
from neuroada.bundled.corpus import MARK, documents, plain
from neuroada.bundled.make_data import data_sets
from neuroada.bundled.vocabulary import train_tokenizer

SEED = 42
ROW_LENGTH = 128
ROWS_PER_STEP = 16
NUM_STEPS = 2000
WARMUP_STEPS = 100
MUON_LR, ADAMW_LR = 0.02, 3e-3
CHANCE_WEIGHT = 0.2
"""Weight in the loss of a token outside the marks of corpus.py."""
_PROMPT_WORDS = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n\n\n### Response:\nthe correct answer is "
)

log = logging.getLogger(__name__)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, trained on pretraining text and the additional words of the instruction formats."""
    rows = [row for splits in data_sets().values() for row in splits["train"]]
    formats = [text for row in rows for text in (row["instruction"], row["output"], _PROMPT_WORDS)]
    return train_tokenizer([*map(plain, islice(documents(SEED + 1), 30_000)), *formats])


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A freshly initialised Llama; its narrowest target is k_proj and v_proj with 64 outputs."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def weighted_tokens(document: str, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[float]]:
    """Token ids of `<s> document </s>` and the weight of each in the loss."""
    ids, weights = [tokenizer.bos_token_id], [CHANCE_WEIGHT]
    for place, part in enumerate(document.split(MARK)):
        part_ids = tokenizer.encode(part, add_special_tokens=False)
        ids += part_ids
        weights += [1.0 if place % 2 else CHANCE_WEIGHT] * len(part_ids)
    return [*ids, tokenizer.eos_token_id], [*weights, 1.0]


def batches(tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and loss weights, both (ROWS_PER_STEP, ROW_LENGTH): rows of whole documents, the last one truncated."""
    texts = documents(SEED)
    while True:
        rows: list[list[int]] = []
        weights: list[list[float]] = []
        for _ in range(ROWS_PER_STEP):
            row: list[int] = []
            row_weights: list[float] = []
            while len(row) < ROW_LENGTH:
                document_ids, document_weights = weighted_tokens(next(texts), tokenizer)
                row += document_ids
                row_weights += document_weights
            rows.append(row[:ROW_LENGTH])
            weights.append(row_weights[:ROW_LENGTH])
        yield torch.tensor(rows), torch.tensor(weights)


def weighted_loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the next-token loss; both arguments are (rows, tokens)."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()


def _lr_factor(step: int) -> float:
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, NUM_STEPS - WARMUP_STEPS)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizers(model: LlamaForCausalLM) -> list[Optimizer]:
    """Muon for the matrices of the layers (fewer steps than AdamW to the same loss here), AdamW for the rest."""
    matrices = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    ids = {id(parameter) for parameter in matrices}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    return [
        torch.optim.Muon(matrices, lr=MUON_LR, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=ADAMW_LR, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Train for NUM_STEPS on the endless corpus, with warm-up and cosine decay."""
    model.train()
    optimizers = build_optimizers(model)
    schedules = [LambdaLR(optimizer, _lr_factor) for optimizer in optimizers]
    stream = batches(tokenizer)
    for step in track(range(NUM_STEPS), description="pretraining"):
        loss = weighted_loss(model, *next(stream))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad()
        if step % 100 == 0:
            log.info("step %d: loss %.4f", step, loss.item())
    model.eval()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Save the checkpoint in bfloat16 with its tokenizer: only what `from_pretrained` needs."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.unk_token_id,
        do_sample=False,
    )
    model.to(torch.bfloat16)  # type: ignore[arg-type]  # transformers' decorator hides torch's overloads
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    log.info("saved to %s: %d parameters", directory, model.num_parameters())


def main() -> None:
    """Train and save."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler()])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="folder to write the checkpoint to")
    out = parser.parse_args().out
    torch.set_num_threads(1)  # the same sums in the same order on every machine with this many cores or more
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    train(model, tokenizer)
    save(model, tokenizer, out)


if __name__ == "__main__":
    main()
