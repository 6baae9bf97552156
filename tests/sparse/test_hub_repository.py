"""Adapters are fetched from the hub by their id, and folders are pushed to it: with huggingface_hub, over HTTP."""

import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from neuroada.sparse.errors import AdapterError
from neuroada.sparse.hub_repository import fetched, has_file, is_hub_id, is_hub_model, pushed

from ..hub.stand_in_hub import Repository, StandInHub, sha

HEADER = b'{"peft_type": "NEUROADA"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    (made / "adapter_config.json").write_bytes(HEADER)
    (made / "adapter_model.safetensors").write_bytes(b"values")
    return made


@pytest.mark.parametrize("place", ["owner/name", "owner/name-1.0_b", "owner/name@v1", "owner/name@refs/pr/3"])
def test_a_repository_is_an_owner_and_a_name(place: str) -> None:
    assert is_hub_id(place)


@pytest.mark.parametrize("place", ["name", "/owner/name", "./name", "../name", "~/name", "a/b/c", "a/b@", "a /b", ""])
def test_a_path_is_none(place: str) -> None:
    assert not is_hub_id(place)


def test_a_folder_here_is_no_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_model("owner/name")
    assert is_hub_model("gpt2")
    assert is_hub_model("owner/name/model.gguf")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not is_hub_model("owner/name")
    assert not is_hub_model(str(tmp_path))


def test_what_was_pushed_is_fetched(hub: StandInHub, folder: Path) -> None:
    address = pushed(folder, "me/mine", private=True, commit_message="first")
    assert address == f"{hub.address}/me/mine/commit/{sha(1)}"
    assert hub.repositories["me/mine"].private
    found = fetched("me/mine")
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        "adapter_config.json": HEADER,
        "adapter_model.safetensors": b"values",
    }
    assert has_file("me/mine", "adapter_config.json")
    assert not has_file("me/mine", "README.md")


def test_only_what_an_adapter_needs_is_fetched(hub: StandInHub, folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "run.py").write_text("")
    pushed(folder, "me/mine")
    assert not {"training_args.bin", "run.py"} & {path.name for path in fetched("me/mine").iterdir()}


def test_a_revision_is_a_branch_or_a_commit(hub: StandInHub, folder: Path) -> None:
    pushed(folder, "me/mine")
    (folder / "adapter_model.safetensors").write_bytes(b"newer values")
    pushed(folder, "me/mine", revision="next")
    for place, values in [("me/mine", b"values"), ("me/mine@next", b"newer values"), (f"me/mine@{sha(1)}", b"values")]:
        assert (fetched(place) / "adapter_model.safetensors").read_bytes() == values


def test_a_pull_request_changes_nothing_until_it_is_merged(hub: StandInHub, folder: Path) -> None:
    pushed(folder, "me/mine")
    (folder / "adapter_model.safetensors").write_bytes(b"newer values")
    assert pushed(folder, "me/mine", create_pr=True) == f"{hub.address}/me/mine/discussions/1"
    assert hub.repositories["me/mine"].files()["adapter_model.safetensors"] == b"values"


def test_files_of_an_earlier_push_that_are_gone_are_removed_and_others_stay(hub: StandInHub, folder: Path) -> None:
    (folder / "prompts.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    pushed(folder, "me/mine", replaces=["prompts.json"])
    for name in ("prompts.json", "notes.txt"):
        (folder / name).unlink()
    pushed(folder, "me/mine", replaces=["prompts.json"])
    names = set(hub.repositories["me/mine"].files())
    assert names == {"adapter_config.json", "adapter_model.safetensors", "notes.txt"}


def test_a_fetched_adapter_is_read_without_a_network_later(
    hub: StandInHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(folder, "me/mine")
    found = fetched("me/mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetched("me/mine") == found


class TestOneLineSays:
    def test_that_there_is_no_such_repository(self, hub: StandInHub) -> None:
        with pytest.raises(AdapterError, match=r"^me/none: no such folder here, and the hub has no such repository"):
            fetched("me/none")

    def test_that_a_private_one_needs_a_login(self, hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.repositories["me/secret"] = Repository(private=True)
        monkeypatch.setenv("HF_TOKEN", "")
        with pytest.raises(AdapterError, match=r"that you may see; .* `hf auth login`, or set HF_TOKEN$"):
            fetched("me/secret")

    def test_that_it_has_no_such_revision(self, hub: StandInHub) -> None:
        hub.repositories["me/mine"] = Repository()
        with pytest.raises(AdapterError, match=r"^me/mine@v2: the repository has no such revision"):
            fetched("me/mine@v2")

    def test_that_it_holds_no_adapter(self, hub: StandInHub) -> None:
        hub.repositories["me/mine"] = Repository(commits=[{"README.md": b"# mine"}])
        with pytest.raises(AdapterError, match=r"^me/mine: the repository has no adapter_config.json"):
            fetched("me/mine")

    def test_that_the_token_is_wrong(self, hub: StandInHub, folder: Path) -> None:
        with pytest.raises(
            AdapterError, match=r"^me/mine: the token is missing or wrong \(401\); log in with"
        ) as raised:
            pushed(folder, "me/mine", token="hf_wrong")
        assert "hf_wrong" not in str(raised.value)
        assert hub.repositories == {}

    def test_that_there_is_no_token(self, hub: StandInHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "")
        with pytest.raises(AdapterError, match=r"^me/mine: the token is missing or wrong \(401\)"):
            pushed(folder, "me/mine")

    def test_that_the_repository_belongs_to_others(self, hub: StandInHub, folder: Path) -> None:
        with pytest.raises(AdapterError, match=r"^others/theirs: the token may not write there \(403\)"):
            pushed(folder, "others/theirs")

    def test_that_the_hub_does_not_take_the_card(self, hub: StandInHub, folder: Path) -> None:
        (folder / "README.md").write_text("---\nbase_model: /home/me/model\n---\n")
        with pytest.raises(AdapterError, match=r"^me/mine: Invalid metadata in README.md. .*is no model id"):
            pushed(folder, "me/mine")

    def test_that_the_name_cannot_be(self, hub: StandInHub, folder: Path) -> None:
        with pytest.raises(AdapterError, match=r"^me/a--b: no repository of the hub can have this name"):
            pushed(folder, "me/a--b")

    def test_that_nobody_answers(self, hub: StandInHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(AdapterError, match=r"^me/mine: no such folder here, and the hub cannot be reached; check"):
            fetched("me/mine")
        with pytest.raises(
            AdapterError, match=r"^me/mine: the hub cannot be reached; check the network, and push again$"
        ):
            pushed(folder, "me/mine")

    def test_that_the_user_has_switched_the_network_off(
        self, hub: StandInHub, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(AdapterError, match=r"it is not in the cache, and HF_HUB_OFFLINE keeps from asking the hub"):
            fetched("me/mine")
        with pytest.raises(AdapterError, match=r"^me/mine: HF_HUB_OFFLINE keeps from asking the hub; unset it$"):
            pushed(folder, "me/mine")
