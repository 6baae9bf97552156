"""The fused update of Adam and AdamW: on a GPU unless the section says otherwise, and nowhere else."""

from typing import Any

import pytest

from neuroada.config.optimizers import with_fused

ADAMW: dict[str, Any] = {"_target_": "torch.optim.AdamW", "_partial_": True, "fused": None}


def test_it_is_the_default_on_a_gpu_alone() -> None:
    """That it is the faster one there, only a GPU can show."""
    assert with_fused(ADAMW, "cuda")["fused"] is True
    assert "fused" not in with_fused(ADAMW, "cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("value", [True, False])
def test_what_is_given_stays(device: str, value: bool) -> None:
    assert with_fused({**ADAMW, "fused": value}, device)["fused"] is value


@pytest.mark.parametrize("other", [{"_target_": "torch.optim.NAdam"}, {"foreach": True}, {"differentiable": True}])
def test_a_class_or_keyword_that_does_not_go_with_it_is_left_alone(other: dict[str, Any]) -> None:
    assert with_fused({**ADAMW, **other}, "cuda") == {key: value for key, value in {**ADAMW, **other}.items() if value}
