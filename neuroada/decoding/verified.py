"""Greedy decoding with verified drafts: one forward pass accepts every token that was drafted correctly.

A pass reads a row's new tokens and a draft of what may follow. Drafted tokens that the model would have chosen itself
are accepted; at the first difference the model's own choice replaces the rest. So the result is that of greedy
decoding in fewer passes; without a draft it is greedy decoding. Rows leave the batch when they end.

Shapes: B active rows, S slots of the cache, W tokens read in a pass, K last positions of a pass that have logits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from neuroada.data.prompt_batches import BudgetBatches
from neuroada.decoding.answers import Stops
from neuroada.decoding.cache import SharedStart, joined
from neuroada.decoding.drafts import Drafts

CPU_TOKENS_PER_PASS = 1024
"""Prompt tokens read together: enough to keep the arithmetic units busy; more only adds padding."""
GPU_TOKENS_PER_PASS = 16_384


@dataclass
class _Row:
    """One prompt and its new tokens so far."""

    limit: int
    """Maximum number of new tokens."""
    unread: list[int]
    """Accepted tokens that are not yet in the cache."""
    num_read: int
    """Accepted tokens in the cache; also the position of the next one."""
    draft: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)

    def settle(self, choices: Sequence[int]) -> int:
        """Apply the model's choices after the last unread token and after each drafted one.

        Returns:
            Number of wrong drafted tokens, at the end of what was read.
        """
        num_right = 0
        while num_right < len(self.draft) and self.draft[num_right] == choices[num_right]:
            num_right += 1
        self.num_read += len(self.unread) + num_right
        self.written += choices[: num_right + 1]
        self.unread = [choices[num_right]]
        return len(self.draft) - num_right


class VerifiedDecoder:
    """Greedy decoding of the prompts of one benchmark.

    Args:
        model: In evaluation mode; ``can_verify`` holds for it.
        ends: Tokens that end a completion.
        drafts: Drafts, which learn from what is written; None disables drafting.
        tokens_per_pass: Maximum prompt tokens read together, including padding; one prompt always fits.
        stops: Texts that end a completion; None for none.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ends: Iterable[int],
        drafts: Drafts | None,
        tokens_per_pass: int = CPU_TOKENS_PER_PASS,
        stops: Stops | None = None,
    ) -> None:
        self._model = model
        self._ends = frozenset(ends)
        self._stops = stops
        self._drafts = drafts
        self._tokens_per_pass = tokens_per_pass
        self._start = SharedStart(model)

    def decode(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """The new tokens of each prompt: at most ``limits`` of them, ending with the end token if it is reached."""
        if not prompts:
            return []
        num_shared = self._start.shared_with(prompts)
        rows = [
            _Row(limit, unread=list(prompt[num_shared:]), num_read=num_shared)
            for prompt, limit in zip(prompts, limits, strict=True)
        ]
        batch = self._read_prompts(rows)
        going = self._lasting(rows, batch)
        while going:
            for row in going:
                row.draft = self._draft(row)
            batch.read(going)
            going = self._lasting(going, batch)
        if self._drafts is not None:
            for row in rows:
                self._drafts.learn(row.written)
        return [row.written for row in rows]

    def _read_prompts(self, rows: Sequence[_Row]) -> "_Batch":
        """The first pass, over a few rows of similar length at a time, because padding costs as much as tokens."""
        for row in rows:
            row.draft = self._draft(row)
        lengths = [len(row.unread) + len(row.draft) for row in rows]
        parts = []
        for indices in BudgetBatches(range(len(rows)), lengths, self._tokens_per_pass):
            part = [rows[index] for index in indices]
            mask_BS = torch.ones((len(part), part[0].num_read), dtype=torch.int64)
            batch = _Batch(self._model, self._start.cache_of(len(part)), mask_BS)
            batch.read(part)
            parts.append(batch)
        return _Batch.joined(parts)

    def _lasting(self, rows: list[_Row], batch: "_Batch") -> list[_Row]:
        """The rows that are not finished; the others leave the batch."""
        lasting = [index for index, row in enumerate(rows) if not self._has_ended(row)]
        if len(lasting) < len(rows):
            batch.keep(lasting)
        return [rows[index] for index in lasting]

    def _draft(self, row: _Row) -> list[int]:
        if self._drafts is None:
            return []
        return self._drafts.after(row.written, most=row.limit - len(row.written) - 1)

    def _has_ended(self, row: _Row) -> bool:
        if row.written[-1] in self._ends or len(row.written) == row.limit:
            return True
        return self._stops is not None and self._stops.found_in(row.written)


class _Batch:
    """The active rows. Slots of padding and of wrong drafts stay in the cache, masked."""

    def __init__(self, model: PreTrainedModel, cache: DynamicCache, mask_BS: Tensor) -> None:
        self._model = model
        self._cache = cache
        self._mask_BS = mask_BS

    @classmethod
    def joined(cls, parts: Sequence["_Batch"]) -> "_Batch":
        """One batch of all rows, padded on the left; the parts' caches are empty afterwards."""
        if len(parts) == 1:
            return parts[0]
        width = max(part._mask_BS.shape[1] for part in parts)
        masks = [pad(part._mask_BS, (width - part._mask_BS.shape[1], 0)) for part in parts]
        model = parts[0]._model
        return cls(model, joined([part._cache for part in parts], model), torch.cat(masks))

    def read(self, rows: Sequence[_Row]) -> None:
        """One forward pass over each row's unread tokens and its draft."""
        num_kept = 1 + max(len(row.draft) for row in rows)
        choices_BK = self._choices(rows, num_kept).tolist()
        for index, (row, choices) in enumerate(zip(rows, choices_BK, strict=True)):
            num_wrong = row.settle(choices[num_kept - 1 - len(row.draft) :])
            if num_wrong:
                self._mask_BS[index, -num_wrong:] = 0

    def keep(self, indices: list[int]) -> None:
        """Keep only these rows."""
        kept_B = torch.tensor(indices, dtype=torch.int64)
        self._mask_BS = self._mask_BS[kept_B]
        if indices:
            self._cache.batch_select_indices(kept_B.to(self._model.device))

    def _choices(self, rows: Sequence[_Row], num_kept: int) -> Tensor:
        """(B, K) most likely token after each of the last positions."""
        tokens = [row.unread + row.draft for row in rows]
        width = max(map(len, tokens))
        ids_BW = torch.zeros((len(rows), width), dtype=torch.int64)  # any id works where the mask is 0
        mask_BW = torch.zeros_like(ids_BW)
        positions_BW = torch.zeros_like(ids_BW)
        for index, (row, ids) in enumerate(zip(rows, tokens, strict=True)):
            start = width - len(ids)
            ids_BW[index, start:] = torch.tensor(ids)
            mask_BW[index, start:] = 1
            positions_BW[index, start:] = torch.arange(row.num_read, row.num_read + len(ids))
        self._mask_BS = torch.cat([self._mask_BS, mask_BW], dim=1)
        device = self._model.device
        output = self._model(
            input_ids=ids_BW.to(device),
            attention_mask=self._mask_BS.to(device),
            position_ids=positions_BW.to(device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=num_kept,
        )
        logits_BKV: Tensor = output.logits
        return logits_BKV.argmax(dim=-1)
