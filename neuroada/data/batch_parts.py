"""A micro-batch cut into smaller ones of the same examples in the same order."""

from collections.abc import Iterator

from neuroada.data import labelled_rows
from neuroada.data.labelled_rows import LabelledBatch
from neuroada.data.packing import TrainingBatch, with_places

AnyBatch = TrainingBatch | LabelledBatch


def num_examples(batch: AnyBatch) -> int:
    """Examples of a micro-batch."""
    lengths = None if "targets" in batch else batch["example_lengths"]
    return len(batch["input_ids"]) if lengths is None else len(lengths)


def parts_of(batch: AnyBatch, most: int | None) -> Iterator[AnyBatch]:
    """Parts of at most so many examples, which together have the batch's loss; None leaves it whole."""
    count = num_examples(batch)
    if most is None or count <= most:
        yield batch
        return
    for start in range(0, count, most):
        yield _part(batch, start, min(start + most, count))


def _part(batch: AnyBatch, start: int, stop: int) -> AnyBatch:
    if "targets" in batch:
        return labelled_rows.part_of(batch, start, stop)
    lengths, mask, positions = batch["example_lengths"], batch["attention_mask"], batch["position_ids"]
    if lengths is not None:  # one row, examples end to end
        rows, tokens = slice(None), slice(sum(lengths[:start]), sum(lengths[:stop]))
    else:
        longest = None if mask is None else int(mask[start:stop].sum(dim=1).max())
        rows, tokens = slice(start, stop), slice(0, longest)
    return TrainingBatch(
        input_ids=batch["input_ids"][rows, tokens],
        attention_mask=None if mask is None else mask[rows, tokens],
        position_ids=None if positions is None else positions[rows, tokens],
        example_lengths=None if lengths is None else lengths[start:stop],
        **with_places(batch["labels"][rows, tokens]),
        num_step_tokens=batch["num_step_tokens"],
    )
