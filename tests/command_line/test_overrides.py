"""What is typed is checked before Hydra reads it; a message shows the override as a shell and Hydra both read it."""

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from neuroada.command_line.overrides import quoted, readable, refuse_unreadable, with_home
from neuroada.config.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def value_of(word: str) -> object:
    """The value that Hydra reads from an override."""
    [override] = OverridesParser.create().parse_overrides([word])
    return override.value()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("adapter", "epoch=9-step=99"),
        ("adapter", "a (1)"),
        ("model.target_modules", ".*(q|v)_proj"),
        ("data.dir", "it's = here"),
        ("data.dir", 'say "a = b"'),
        ("data.dir", 'back\\"slashes\\\\" = x\\'),
    ],
)
def test_a_value_that_hydra_does_not_take_is_shown_quoted(key: str, value: str) -> None:
    word = f"{key}={value}"
    with pytest.raises(UserError, match=r"Hydra's grammar does not take this value \(.+\); quote it: ") as caught:
        refuse_unreadable(["seed=1", word])
    shown = str(caught.value).rpartition("quote it: ")[2]
    [typed] = shlex.split(shown)
    assert typed.partition("=")[0] == key
    assert str(value_of(typed)) == value


def test_a_list_stays_a_list() -> None:
    assert readable("adapter=[a=1,b]") == shlex.quote('adapter=["a=1",b]')
    assert value_of('adapter=["a=1",b]') == ["a=1", "b"]


def test_a_word_without_a_value_gets_a_hint() -> None:
    with pytest.raises(UserError, match=r"^model: give key=value; neuroada --explain model"):
        refuse_unreadable(["model"])


@pytest.mark.parametrize("text", ["plain", 'a"b', "a\\", 'a\\"', "a (1) = ~/{x}", "'"])
def test_quoted_texts_are_read_as_they_are(text: str) -> None:
    assert str(value_of(f"x={quoted(text)}")) == text


@pytest.mark.parametrize("word", ["logger=null", "logger=wandb,null"])
def test_null_is_no_option_of_a_group(word: str) -> None:
    with pytest.raises(UserError, match=r"^logger=null: there is no such option; .*none.*$"):
        refuse_unreadable([word])


@pytest.mark.parametrize("word", ["budget=7", "budget=top1,7"])
def test_a_number_is_no_option_of_a_group(word: str) -> None:
    with pytest.raises(UserError, match=r"^budget=7: there is no such option; .*top20.* \(or budget\.top_k=7\)$"):
        refuse_unreadable([word])


@pytest.mark.parametrize("word", ["seed=7", "~callbacks.progress_bar", "+x=1", "budget=top1,top5", "budget@x=top1"])
def test_what_hydra_takes_passes(word: str) -> None:
    refuse_unreadable([word])


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("data.dir=~/my data", "{home}/my data"),
        ("data.dir=~", "{home}"),
        ("adapter=[~/a,b,~/c]", ["{home}/a", "b", "{home}/c"]),
        ("hydra.run.dir='~/run'", "{home}/run"),
        ("hydra.run.dir=~/run", "{home}/run"),
        ("data.dir=a~/b", None),
        ('data.dir="~/quoted"', None),
        ("~callbacks.progress_bar", None),
    ],
)
def test_the_home_folder_is_expanded_where_it_begins_a_value(typed: str, value: object, home: Path) -> None:
    [word] = with_home([typed])
    if value is None:
        assert word == typed
        return
    read = value_of(word)
    filled = [str(one).format(home=home) for one in (value if isinstance(value, list) else [value])]
    assert [str(one) for one in (read if isinstance(read, list) else [read])] == filled


def test_flags_are_expanded_too(home: Path) -> None:
    assert with_home(["--config-dir=~/conf", "-m"]) == [f"--config-dir={home}/conf", "-m"]
    assert re.fullmatch(r"--explain", with_home(["--explain"])[0])
