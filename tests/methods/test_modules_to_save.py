"""``method.modules_to_save``: counted with the budget, and refused in one line where it cannot be kept."""

import re
from pathlib import Path

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.preparation import prepare
from neuroada.jobs.sizing import size
from neuroada.sparse.errors import AdapterError

from ..tiny_runs import MakeRun

NORM = "method.modules_to_save=[norm]"
HIDDEN = 64


def trainable(run: RunConfig) -> int:
    return size(run).sized.budget.trainable


@pytest.mark.parametrize("method", ["neuroada", "lora", "ia3", "shira"])
def test_the_modules_count_with_the_method(method: str, make_run: MakeRun) -> None:
    assert trainable(make_run(f"method={method}", NORM)) == trainable(make_run(f"method={method}")) + HIDDEN


def test_a_number_of_parameters_includes_them(make_run: MakeRun) -> None:
    plain = trainable(make_run("budget=top2"))
    asked = f"budget.trainable={plain + HIDDEN}"
    assert size(make_run(NORM, asked)).sized.size == {"top_k": 2}


def test_a_matched_rival_gets_the_same_adapter_with_and_without(make_run: MakeRun) -> None:
    settings = ("method=lora", "budget.match=neuroada", "budget.top_k=20")
    assert size(make_run(*settings, NORM)).sized.size == size(make_run(*settings)).sized.size


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("method.modules_to_save=[lm_head]",), "lm_head shares a weight with model.embed_tokens.weight"),
        (("method=lora", "method.modules_to_save=[lm_head]"), "lm_head shares a weight with model.embed_tokens"),
        (("method=lora", "method.modules_to_save=[lm_head,embed_tokens]"), "peft would train separate copies"),
        (("method=pissa", NORM), "method=pissa saves plain LoRA factors alone"),
        (("method=lora", "+method.settings.modules_to_save=[norm]"), "use method.modules_to_save"),
    ],
)
def test_what_cannot_be_saved_is_refused(settings: tuple[str, ...], words: str, make_run: MakeRun) -> None:
    with pytest.raises((UserError, AdapterError), match=re.escape(words)):
        size(make_run(*settings))


def test_it_cannot_be_sharded(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("trainer=fsdp", "trainer.accelerator=cpu", NORM)
    with pytest.raises(UserError, match=r"method=neuroada with modules_to_save cannot be sharded; use trainer=ddp"):
        prepare(size(run), tmp_path)
