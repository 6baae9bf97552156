"""What is measured has the memory to itself."""

import gc
import weakref
from collections.abc import Callable

import torch

from neuroada.config.schema import RunConfig
from neuroada.costs.workloads import backbone


def test_an_earlier_backbone_is_freed_before_the_next_is_made(make_run: Callable[..., RunConfig]) -> None:
    run = make_run("job=benchmark")
    model = backbone(run, torch.device("cpu"), torch.float32)
    model.__dict__["itself"] = model  # as the hooks of transformers do, in a cycle
    earlier = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert earlier() is not None
        backbone(run, torch.device("cpu"), torch.float32)
        assert earlier() is None
    finally:
        gc.enable()
