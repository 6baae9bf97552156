"""``--explain``: everything that a key or group can be, from the schema and from the classes' own documentation."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from neuroada.command_line.explaining import explained, option_texts
from neuroada.config.errors import UserError
from neuroada.config.field_texts import field_texts
from neuroada.runs.registration import without_hydra

from ..quick_compose import CONF

Composed = Callable[..., DictConfig]
GROUPS = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir())


@pytest.fixture
def explain(composed: Composed) -> Callable[..., str]:
    return lambda key, *overrides: "\n".join(explained(key, without_hydra(composed(*overrides))))


def test_a_field_has_type_value_choices_and_text(explain: Callable[..., str]) -> None:
    text = explain("evaluation.decoding", "evaluation.decoding=plain")
    assert text.startswith(
        "evaluation.decoding: str\n  now: plain\n  choices: auto, verified, plain, continuous, vllm\n"
    )
    assert "  verified: drafts tokens and verifies them in one pass" in text


def test_a_reference_shows_what_it_resolves_to(explain: Callable[..., str]) -> None:
    assert "  now: 0.005  (from ${oc.select:" in explain("optimizer.lr")


def test_a_keyword_of_a_class_has_its_own_documentation(explain: Callable[..., str]) -> None:
    assert "Stop training once this number of epochs is reached." in explain("trainer.max_epochs")
    assert "  How connections are chosen: magnitude, smallest, random," in explain("method.selection")
    assert explain("trainer.limit_val_batches").startswith("trainer.limit_val_batches: not set; +trainer.limit_val")


def test_a_group_lists_options_and_keys(explain: Callable[..., str]) -> None:
    text = explain("trainer")
    assert "  fsdp     FSDP2, one process per device" in text
    assert "  trainer.max_epochs=3  # Stop training once" in text
    assert "it also takes, with a plus (+trainer." in text


@pytest.mark.parametrize("group", [group for group in GROUPS if not group.startswith("hydra")])
def test_every_option_says_what_it_is(group: str) -> None:
    assert [name for name, text in option_texts(CONF / group).items() if not text] == []


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("group", GROUPS)
def test_every_group_can_be_asked_about(explain: Callable[..., str], group: str) -> None:
    assert explain(group)


def test_every_key_of_the_schema_has_a_text() -> None:
    assert [key for key, field in field_texts().items() if not field.text] == []


def test_an_unknown_key_gets_close_matches(explain: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=r"^budget\.topk: no such key; did you mean budget\.top_k"):
        explain("budget.topk")


def test_a_folder_of_options_shows_where_they_are(explain: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.yaml").write_text("# @package _global_\n# Said of it.\nx: 1\n")
    (tmp_path / "bare.yaml").write_text("x: 1\n")
    assert option_texts(tmp_path) == {"bare": "", "deep/one": "Said of it."}
