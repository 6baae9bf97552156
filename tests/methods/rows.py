"""What each method promises beyond the common contract: one row enters a method in the battery."""

import importlib.util
from dataclasses import dataclass

from neuroada.config.quantizations import ALL, package_of


@dataclass(frozen=True)
class Row:
    """A method under test.

    Attributes:
        name: A file of ``conf/method``.
        wrong: An override that the method has to refuse.
        overrides: Further settings.
        starts_within: Most that attaching may move the logits, as a share of the largest; 0 means bit for bit, None
            that nothing is promised.
        merges_within: Most that merging may move them.
        reopens_within: Most that saving and opening again may move them.
        changes_per_row: Entries of each row of a target's weight that training may change in place; None where
            ``parameters()`` alone change.
        trains_entries: Whether only entries of ``parameters()`` train.
        stores_ranks: What a saved adapter counts as trained, as a multiple of what was.
        holds_per_value: Numbers that a checkpoint may hold for each trained one.
        holds_backbone: Whether a checkpoint may hold the backbone.
        trains_whole: Whether the overrides let modules train whole beside the method's own parameters.
        backbone: The tiny backbone it is tested on.
        quantized: The value of ``model.quantization``; its package may be absent.
        variant: What tells the row from others of its method.
        is_slow: Whether its tests run with the slow ones: another row of the method stands for it.
    """

    name: str
    wrong: str
    overrides: tuple[str, ...] = ()
    starts_within: float | None = 0.0
    merges_within: float = 1e-5
    reopens_within: float = 0.0
    changes_per_row: int | None = None
    trains_entries: bool = False
    stores_ranks: int = 1
    holds_per_value: int = 3
    holds_backbone: bool = False
    trains_whole: bool = False
    backbone: str = "llama"
    quantized: str = ""
    variant: str = ""
    is_slow: bool = False

    @property
    def id(self) -> str:
        variant = self.variant or ("whole" if self.trains_whole else "")
        return f"{self.name}-{variant}" if variant else self.name

    def composed_with(self) -> tuple[str, ...]:
        """The overrides that select it."""
        return (
            f"method={self.name}",
            *self.overrides,
            *([f"model.quantization={self.quantized}"] * bool(self.quantized)),
        )

    @property
    def is_absent(self) -> bool:
        """Whether a package that it needs is not installed."""
        return bool(self.quantized) and importlib.util.find_spec(package_of(self.quantized)) is None


def quantised(name: str) -> Row:
    """NeuroAda beside weights that cannot be written."""
    return Row(
        "neuroada", "method.selection=gradients", ("budget.top_k=2",), quantized=name, variant=name, is_slow=True
    )


def beside(name: str, quantized: str) -> Row:
    """A rival beside weights that cannot be written."""
    return Row(name, "method.settings.r=0", quantized=quantized, variant=quantized, is_slow=True)


def chosen_by(selection: str, wrong: str, name: str = "neuroada", is_slow: bool = True) -> Row:
    """NeuroAda, or its rival with a mask, with another selection."""
    return Row(
        name,
        wrong,
        ("budget.top_k=2", f"method.selection={selection}"),
        merges_within=0.0,
        changes_per_row=2,
        trains_entries=name == "masked",
        variant=selection,
        is_slow=is_slow,
    )


ROWS = (
    Row("neuroada", "method.selection=strongest", ("budget.top_k=2",), merges_within=0.0, changes_per_row=2),
    Row("neuroada", "method.modules_to_save=[nrm]", ("budget.top_k=2", "method.modules_to_save=[norm]"),
        merges_within=0.0, changes_per_row=2, trains_whole=True),
    Row("masked", "optimizer.weight_decay=0.1", ("budget.top_k=2",), merges_within=0.0, changes_per_row=2,
        trains_entries=True),
    chosen_by("gradient", "method.calibration_batches=0", is_slow=False),
    chosen_by("wanda", "method.calibration_batch_size=1.5"),
    chosen_by("fisher", "method.scores_gib=-1"),
    chosen_by("lift", "method.selection={name: lift, rnk: 3}"),
    chosen_by("magnitude_relative_to_column", "method.calibration_batches=4"),
    chosen_by("random", "method.scores_gib=4"),
    chosen_by("smallest", "method.selection={name: smallest, rank: 3}"),
    chosen_by("wanda", "method.calibration_batches=0", name="masked"),
    Row("neuroada", "budget.by_depth=[1,2]", ("budget.top_k=2", "budget.top_k_pattern={down_proj: 4}",
        "method.skip_layers=[-1]"), merges_within=0.0, changes_per_row=4, variant="shaped", is_slow=True),
    Row("neuroada", "method.neuron_fraction=2", ("budget.top_k=2", "method.neuron_fraction=0.5"), merges_within=0.0,
        changes_per_row=2, holds_per_value=4, variant="neurons", is_slow=True),
    Row("neuroada", "budget.spread=row", ("budget.top_k=2", "budget.spread=layer", "method.selection=gradient"),
        merges_within=0.0, changes_per_row=96, holds_per_value=4, variant="spread", is_slow=True),
    Row("neuroada", "method.neuron_fraction=0.5", ("budget.top_k=2", "budget.spread=model",
        "method.selection=random"), merges_within=0.0, changes_per_row=96, holds_per_value=4, variant="random-model",
        is_slow=True),
    Row("neuroada", "method.selection=largest", ("budget.top_k=2", "model.target_modules=null"), merges_within=0.0,
        changes_per_row=2, backbone="gpt2", variant="conv1d", is_slow=True),
    quantised("torchao_int8"),
    quantised("torchao_int4"),
    quantised("bitsandbytes_nf4"),
    quantised("bitsandbytes_int8"),
    Row("lora", "method.settings.r=0"),
    Row("lora", "+method.settings.modules_to_save=[norm]", ("method.modules_to_save=[norm]",), trains_whole=True),
    Row("rslora", "+method.settings.rr=1"),
    Row("dora", "method.settings.r=0"),
    Row("pissa", "method.settings.init_lora_weights=olora", starts_within=1e-3, reopens_within=1e-5, stores_ranks=2),
    Row("ia3", "method.settings.feedforward_modules=[gate]"),
    Row("shira", "method.settings.r=40"),
    Row("supertuning", "method.settings.sparsity=1.0"),
    *(beside("lora", name) for name in ALL),
    *(beside("dora", name) for name in ALL if name != "bitsandbytes_int8"),
    Row("miss", "method.settings.r=0"),
    Row("vera", "method.settings.r=0"),
    Row("road", "method.settings.variant=road_3"),
    Row("oft", "+method.settings.target_modules=[q_proj]"),
    Row("full", "+method.rank=1", merges_within=0.0, holds_backbone=True),
    Row("bitfit", "+method.rank=1", merges_within=0.0),
    Row("layernorm", "+method.rank=1", merges_within=0.0),
    Row("head", "+method.rank=1", merges_within=0.0),
)  # fmt: skip
