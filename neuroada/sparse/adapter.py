"""An adapter: bypasses that train and keep the model's weights effective, until they are merged or removed."""

import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neuroada.sparse import adapter_files
from neuroada.sparse.base_weights import fingerprint
from neuroada.sparse.biases import match_biases
from neuroada.sparse.budget import Budget
from neuroada.sparse.bypassing import AdaptedLayer, add_bypass, refuse_rows
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.coverage import coverage
from neuroada.sparse.dequantising import REFUSE, learnt_beside, merge_dequantised
from neuroada.sparse.disabling import CanBeDisabled
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.frozen_layers import FrozenWeights
from neuroada.sparse.gradient import AUTO, check_way
from neuroada.sparse.layer import remove_bypass
from neuroada.sparse.linear_layers import precisions, weight_of
from neuroada.sparse.module_names import plain_modules, unwrapped
from neuroada.sparse.optimizer_steps import FirstStep, follow_optimizers
from neuroada.sparse.publishing import CanBePushed
from neuroada.sparse.rewrite import write_values
from neuroada.sparse.saved_inputs import limit_saved_inputs
from neuroada.sparse.sharded_rows import all_rows, is_sharded
from neuroada.sparse.sharding import by_rows, reshard, shard_model
from neuroada.sparse.switching import PreparedAdapter, prepare
from neuroada.sparse.whole_modules import WholeModules, match_whole, report_others_that_train

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

logger = logging.getLogger(__name__)


class Adapter(CanBeDisabled, CanBePushed):
    """The bypasses of one model. Made by ``attach`` or ``load``; ``merge`` or ``detach`` end it.

    After each step of a ``torch.optim`` optimizer that holds its values, and after each ``load_state_dict``, the
    effective weights are rewritten automatically; ``sync`` is for values changed in another way. An optimizer that
    evaluates its closure several times within one step (``torch.optim.LBFGS``) needs ``sync`` as the closure's first
    line.

    Attributes:
        model: The adapted model.
        config: The configuration it was attached with.
        layers: The adapted layers by module name, each with ``.columns`` and ``.values``, (out_features, k); (rows, k)
            where ``.bypass.rows`` says which neurons have some.
        whole: What trains whole: ``config.modules_to_save``, and biases.
        coverage: Which of the model's weights the layers are.
        precision: What the weights of the layers are stored as: a dtype, or the quantisation and its library.
        is_sharded: Whether ``shard`` spread the model over ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        config: NeuroAdaConfig,
        columns: Mapping[str, torch.Tensor],
        gradient: str = AUTO,
        rows: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        modules = plain_modules(model)
        for device in {columns_OK.device for columns_OK in columns.values()}:
            check_way(gradient, device)
        refuse_rows(modules, rows or {})
        match_biases(model, config.bias)  # refuses before anything changes
        whole = match_whole(model, config.modules_to_save)
        self.coverage = coverage(model, columns, whole)
        self.model = model
        self.config = config
        self.is_sharded = False
        # By name: load_state_dict(assign=True) and others replace the parameters with new ones.
        self._requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        model.requires_grad_(False)
        self.layers: dict[str, AdaptedLayer] = {}
        self.precision = precisions(modules[name] for name in columns)
        for name, columns_OK in columns.items():
            self.layers[name] = add_bypass(modules[name], columns_OK, gradient, (rows or {}).get(name))
        self._frozen = FrozenWeights.of(model)
        limit_saved_inputs(model, {name: layer.bypass for name, layer in self.layers.items()})
        self.whole = WholeModules({**whole, **match_biases(model, config.bias, whole)})
        # The model keeps its adapter alive, so the caller does not have to hold the returned object.
        model._neuroada_adapter = self  # type: ignore[assignment]
        self._follow_optimizers()

    def __repr__(self) -> str:
        if not self.layers:
            return "Adapter(merged or detached)"
        counted, covered = self._counted(), self.coverage
        blocks = f" in {covered.num_adapted_blocks} of {covered.num_blocks} blocks" if covered.num_blocks else ""
        base = getattr(unwrapped(self.model), "name_or_path", None) or type(unwrapped(self.model)).__name__
        whole = f", whole modules: {', '.join(self.config.modules_to_save)}" if self.config.modules_to_save else ""
        return (
            f"Adapter(k={self._top_k()}, {len(self.layers)} layers{blocks}{whole}, {counted.trainable:,} trained "
            f"values, {counted.percent:.3g} % of {counted.total:,}, base: {base})"
        )

    def parameters(self) -> Iterator[nn.Parameter]:
        """What trains: one (out_features, k) tensor per layer, and all of the whole modules."""
        return itertools.chain((layer.values for layer in self._attached().values()), self.whole.parameters())

    def sync(self) -> None:
        """Rewrite the effective weights from the values."""
        trained = self._named_parameters()
        if any(part.grad is not None for part in trained.values()):  # a loop without a torch optimizer
            self._first_step(trained)
        self._rewrite()

    def _rewrite(self) -> None:
        layers = self._attached()
        if not self.is_sharded and (foreign := [name for name in layers if is_sharded(weight_of(layers[name]))]):
            raise AdapterError(f"{foreign[0]}: its weight was sharded without its bypass; use adapter.shard(mesh)")
        write_values(layers.values())

    def budget(self) -> Budget:
        """The parameter counts of this adapter."""
        self._attached()
        return self._counted()

    @torch.no_grad()
    def rounded_away(self) -> float:
        """Share of the values, 0 to 1, that are not zero but are lost to rounding in the weight's dtype."""
        lost = count = 0
        for layer in self._attached().values():
            lost += layer.num_rounded_away()
            count += layer.values.numel()
        return lost / count

    def fingerprint(self) -> str:
        """Hash of the base entries under the bypasses, the same for an fp32 and a bf16 load of one checkpoint."""
        return fingerprint(self._base_entries())

    def save(self, directory: str | Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` into a directory, created if missing.

        On a sharded model every rank must call it; the first one writes, and the others wait for it.
        """
        report_others_that_train(self.model, self.parameters())
        stored = self.stored()
        if not self.is_sharded or torch.distributed.get_rank() == 0:
            adapter_files.write(Path(directory).expanduser(), stored)
        if self.is_sharded:
            torch.distributed.barrier()

    def stored(self) -> adapter_files.StoredAdapter:
        """What ``save`` writes, on the CPU."""
        self._attached()
        return self._current(self._whole_now()).stored(self.precision)

    def shard(self, mesh: "DeviceMesh") -> None:
        """Shard the model over the ranks of a one-dimensional mesh with FSDP2: weights, columns and values by rows.

        Every rank must start with the same model, on the CPU if it does not fit a device, and the same adapter; see
        ``neuroada.sparse.sharding`` for what is in memory when. Create the optimizer afterwards. ``sync``, ``save`` and
        the other methods work as before, called on every rank; to ``merge`` or ``detach``, load the saved adapter into
        a whole model.

        Raises:
            AdapterError: It is sharded already, has modules that train whole, or not the same k in each neuron.
        """
        self._refuse_sharded("shard")
        if any(layer.bypass.rows is not None for layer in self._attached().values()):
            raise AdapterError(
                "shard(): neurons with different numbers of trained inputs (neuron_fraction, spread) cannot be "
                "sharded; train on whole models, such as with DDP"
            )
        if self.config.modules_to_save or self.config.bias:
            key = "modules_to_save" if self.config.modules_to_save else "bias=all"
            raise AdapterError(f"shard(): {key} cannot be sharded; train on whole models, such as with DDP")
        shard_model(self.model, by_rows(self._attached()), mesh)
        self.is_sharded = True
        self._rewrite()  # of an adapter that was loaded for this, the values are not in the weights yet

    def prepare(self, directory: str | Path, *, allow_precision: bool = False) -> PreparedAdapter:
        """Read another adapter of the same base model and layers, check it and move it to the model's device.

        The model does not change; ``switch`` then needs only one write into each weight. Columns, k and everything
        else in the configuration may differ.

        Args:
            directory: What ``save`` wrote, or the folder of a run.
            allow_precision: As in ``neuroada.load``.

        Raises:
            AdapterError: The files are damaged, or belong to another base model or other layers.
        """
        self._refuse_sharded("prepare")
        return prepare(self.model, self._attached(), self.whole, Path(directory), allow_precision)

    def switch(self, other: PreparedAdapter | str | Path) -> PreparedAdapter:
        """Replace this adapter's configuration, columns and values by a saved adapter's; the base stays exact.

        The layers get new parameters: create a new optimizer to train them.

        Args:
            other: What ``prepare`` or an earlier ``switch`` returned, or the directory of an adapter.

        Returns:
            The previous configuration, columns and values, ready to switch back to.

        Raises:
            AdapterError: As ``prepare``; the model is then unchanged.
        """
        self._refuse_sharded("switch")
        layers = self._attached()
        prepared = other if isinstance(other, PreparedAdapter) else self.prepare(other)
        prepared.check_fits(self.model, layers)
        before = self.taken()
        for name, layer in layers.items():
            layer.restore()
            layer.bypass = prepared.bypasses[name].train(layer.training)
        self.whole.write(prepared.whole)
        self.config = prepared.config
        self._rewrite()
        return before

    def taken(self) -> PreparedAdapter:
        """This adapter with its parameters, for a later ``switch``; modules that train whole are copied."""
        self._attached()
        self.enable()
        return self._current({name: tensor.detach().clone() for name, tensor in self.whole.tensors().items()})

    def _current(self, whole: Mapping[str, torch.Tensor]) -> PreparedAdapter:
        bypasses = {name: layer.bypass for name, layer in self.layers.items()}
        return PreparedAdapter(self.model, self.config, bypasses, dict(whole))

    def merge(self, *, quantized: str = REFUSE) -> None:
        """Keep the effective weights and remove the bypasses: the model is a plain fine-tuned model.

        Args:
            quantized: What to do with quantised layers, whose weights cannot take the values: ``refuse``, or
                ``dequantize``, which replaces all of the model's quantised layers by ``nn.Linear`` with the same
                weights, in the precision of the rest of the model, and says so in a warning.

        Raises:
            AdapterError: The model is sharded, or quantised layers are refused; it is then unchanged.
        """
        self._refuse_sharded("merge")
        self._attached()
        self.enable()
        learnt = learnt_beside(self.layers, quantized)
        self.sync()
        self._remove()
        if learnt:
            merge_dequantised(self.model, learnt)

    def detach(self) -> None:
        """Restore the base weights bit for bit, and ``requires_grad``, and remove the bypasses."""
        self._refuse_sharded("detach")
        layers = self._attached()
        self.enable()
        for layer in layers.values():
            layer.restore()
        self.whole.restore()
        self._remove()

    def _attached(self) -> dict[str, AdaptedLayer]:
        if not self.layers:
            raise AdapterError("this adapter was merged or detached; attach or load one again")
        if self.is_sharded:
            reshard(self.model)
        return self.layers

    def _base_entries(self) -> dict[str, torch.Tensor]:
        """(out_features, k) base entries under the bypasses, on the CPU, by layer name."""
        return {name: all_rows(layer.bypass.original).cpu() for name, layer in self._attached().items()}

    def _counted(self) -> Budget:
        layers = {name: layer.values.numel() for name, layer in self.layers.items()}
        layers.update(self.whole.sizes())
        covered = self.coverage
        return Budget(trainable=sum(layers.values()), total=covered.total, layers=layers, coverage=covered)

    def _top_k(self) -> str:
        if self.config.spread:
            return f"{self.config.top_k} on average"
        counts = {layer.columns.shape[1] for layer in self.layers.values()} if self.config.top_k_pattern else set()
        return f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(self.config.top_k)

    def _refuse_sharded(self, action: str) -> None:
        if self.is_sharded:
            raise AdapterError(
                f"{action}(): the model is sharded over ranks; save() the adapter and load() it into a whole model "
                "(for a run, python run.py job=merge does this)"
            )

    def _remove(self) -> None:
        for layer in self.layers.values():
            remove_bypass(layer)
        self._frozen.release()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._requires_grad.get(name, parameter.requires_grad))
        self.layers = {}
        self._hook.remove()
        del self.model._neuroada_adapter

    def _follow_optimizers(self) -> None:
        self._first_step = FirstStep()
        self._hook = follow_optimizers(self)

    def _named_parameters(self) -> dict[str, nn.Parameter]:
        """What trains, by layer name, or by parameter name in whole modules; nothing once it is merged or detached."""
        if not self.layers:
            return {}
        # Whole, as FSDP leaves them after a forward, they would not be those that an optimizer has.
        return {**{name: layer.values for name, layer in self._attached().items()}, **self.whole.named_parameters()}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_hook"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A deep copy or an unpickled adapter follows its own optimizers.
        self.__dict__.update(state)
        if self.layers:
            self._follow_optimizers()
