"""An adapter loaded to be sharded: the weights, which ranks may map from one file, stay untouched until then.

How much host memory the ranks of a large model take, only a machine with GPUs can show.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

import neuroada

from .conftest import make_llama


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.fsdp
def test_weights_are_written_to_after_sharding_alone(tmp_path: Path, one_rank: None) -> None:
    config = neuroada.NeuroAdaConfig(top_k=2)
    expected = make_llama()
    trained = neuroada.attach(expected, config)
    with torch.no_grad():
        for values in trained.parameters():
            values.normal_(std=0.1)
    trained.sync()
    trained.save(tmp_path / "adapter")

    model = make_llama()
    versions = {name: weight._version for name, weight in model.named_parameters()}
    adapter = neuroada.load(model, tmp_path / "adapter", to_shard=True)
    assert {name: weight._version for name, weight in model.named_parameters() if name in versions} == versions
    adapter.shard(init_device_mesh("cpu", (1,)))
    for name, layer in adapter.layers.items():
        assert torch.equal(layer.weight.full_tensor(), trained.layers[name].weight)  # type: ignore[operator]
