"""What masked training refuses."""

import pytest

from neuroada.config.errors import UserError
from neuroada.methods.masked import Masked


def test_masked_training_refuses_an_optimizer_that_decays_unless_told_otherwise() -> None:
    method = Masked(name="masked")
    with pytest.raises(UserError, match=r"optimizer.weight_decay=0.01: method=masked"):
        method.check_optimizer({"_target_": "torch.optim.AdamW", "lr": 1e-2})
    method.check_optimizer({"_target_": "torch.optim.AdamW", "weight_decay": 0.0})
    method.check_optimizer({"_target_": "torch.optim.Adam"})
