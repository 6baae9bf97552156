"""``resume=<a stranger's run folder>``: nothing is built that the user's own configuration does not name there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.runs.registration import without_hydra
from neuroada.runs.settling import settle

from ..composed_runs import CONF

Checked = Callable[..., RunConfig]
StoreRun = Callable[..., Path]

STOLEN = {"_target_": "numpy.savetxt", "fname": "stolen.txt", "X": [1.0]}


def tampered(folder: Path, path: str, value: Any) -> Path:
    """The folder with another value at a dotted path of its configuration."""
    file = folder / "config.yaml"
    stored = section = yaml.safe_load(file.read_text())
    *groups, key = path.split(".")
    for group in groups:
        section[group] = section.get(group) or {}
        section = section[group]
    section[key] = value
    file.write_text(yaml.safe_dump(stored))
    return folder


class TestCode:
    @pytest.mark.slow_after(5)
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("method.gradient", STOLEN),
            ("method._target_", "os.makedirs"),
            ("optimizer._target_", "os.system"),
            ("optimizer._args_", ["touch stolen.txt"]),
            ("callbacks.more", STOLEN),
            ("callbacks.checkpoint.inner", STOLEN),
            ("logger.csv", STOLEN),
            ("trainer.plugins", [[STOLEN]]),
            ("trainer._target_", "os.system"),
            ("data.protocols.mine", STOLEN),
            ("protocol.judge", STOLEN),
            ("task.benchmarks", [{"name": "boolq", "protocol": {"judge": STOLEN}}]),
            ("evaluation.benchmarks", [{"name": "boolq", "protocol": {"judge": STOLEN}}]),
            ("benchmark.methods", [STOLEN]),
            ("job.function", "os.system"),
        ],
    )
    def test_that_the_user_names_nowhere_is_refused(
        self, checked: Checked, store_run: StoreRun, path: str, value: Any
    ) -> None:
        folder = tampered(store_run(), path, value)
        with pytest.raises(UserError, match=rf"^resume={folder}: its config\.yaml has [^\n]*trust={folder} if [^\n]*$"):
            checked(f"resume={folder}")

    def test_of_another_place_is_refused(self, checked: Checked, store_run: StoreRun) -> None:
        folder = tampered(store_run(), "method.gradient", {"_target_": "torch.optim.AdamW"})
        with pytest.raises(UserError, match=r"has method\.gradient\._target_=torch\.optim\.AdamW"):
            checked(f"resume={folder}")

    @pytest.mark.slow_after(1)
    @pytest.mark.parametrize("choice", ["method=lora", "callbacks=watch", "logger=tensorboard", "trainer=ddp"])
    def test_of_the_shipped_configuration_is_built(self, checked: Checked, store_run: StoreRun, choice: str) -> None:
        assert checked(f"resume={store_run(choice)}") == checked(choice)

    def test_that_the_command_names_is_built(self, checked: Checked, store_run: StoreRun) -> None:
        typed = "optimizer._target_=torch.optim.NAdam"
        folder = store_run(typed)
        assert checked(f"resume={folder}", typed) == checked(typed)

    def test_of_a_folder_that_the_user_trusts_is_built(self, checked: Checked, store_run: StoreRun) -> None:
        typed = "optimizer._target_=torch.optim.NAdam"
        folder = store_run(typed)
        run = checked(f"resume={folder}", f"trust={folder}/")
        assert run == checked(typed)
        assert run.trust is None

    def test_trust_in_another_folder_does_not_count(self, checked: Checked, store_run: StoreRun) -> None:
        folder = tampered(store_run(), "trust", "earlier")
        with pytest.raises(UserError, match="is not the folder of resume="):
            checked(f"resume={folder}", "trust=elsewhere")
        with pytest.raises(UserError, match=r"^trust=elsewhere: is not the folder of resume=auto"):
            checked("trust=elsewhere")

    def test_a_folder_does_not_trust_itself(self, checked: Checked, store_run: StoreRun) -> None:
        folder = store_run()
        tampered(folder, "trust", str(folder))
        tampered(folder, "method.gradient", STOLEN)
        with pytest.raises(UserError, match="nor this command names there"):
            checked(f"resume={folder}")


class TestConfigDir:
    """Classes of the user's own files, at the place where Hydra puts them."""

    @pytest.fixture
    def own(self, tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "own"

        class Own(SearchPathPlugin):
            def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
                search_path.append("test", f"file://{folder}")

        Plugins.instance().register(Own)
        yield folder
        Plugins.instance().class_name_to_class.pop(f"{Own.__module__}.{Own.__qualname__}", None)
        Plugins.instance().plugin_type_to_subclass_list[SearchPathPlugin].remove(Own)

    @pytest.mark.slow_after(1)
    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("callbacks/mine.yaml", "timer: {_target_: lightning.pytorch.callbacks.Timer, duration: '00:01:00:00'}"),
            (
                "experiment/mine.yaml",
                "# @package _global_\ncallbacks: {timer: {_target_: lightning.pytorch.callbacks.Timer}}",
            ),
            ("any.yaml", "# @package callbacks\ntimer: {_target_: lightning.pytorch.callbacks.Timer}"),
        ],
    )
    def test_what_it_names_is_built(
        self, own: Path, store_run: StoreRun, file: str, content: str, tmp_path: Path
    ) -> None:
        folder = tampered(store_run(), "callbacks.timer", {"_target_": "lightning.pytorch.callbacks.Timer"})
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = without_hydra(compose("config", return_hydra_config=True))
            overrides = [f"resume={folder}"]
            composed.resume = str(folder)
            with pytest.raises(UserError, match=r"callbacks\.timer\._target_"):
                settle(composed, overrides)
            (own / file).parent.mkdir(parents=True)
            (own / file).write_text(content)
            assert settle(composed, overrides).callbacks.timer._target_ == "lightning.pytorch.callbacks.Timer"


class TestPaths:
    @pytest.mark.slow_after(3)
    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("callbacks.checkpoint.dirpath", "/home/somebody/.ssh"),
            ("callbacks.checkpoint.filename", "../../../stolen"),
            ("logger.csv.save_dir", "../stolen"),
            ("logger.csv.save_dir", "s3://a-stranger/stolen"),
            ("benchmark.out", "/etc/stolen"),
        ],
    )
    def test_out_of_the_run_folder_is_refused(
        self, checked: Checked, store_run: StoreRun, path: str, value: str
    ) -> None:
        folder = tampered(store_run(), path, value)
        with pytest.raises(UserError, match=rf"has {path}={value}, which neither"):
            checked(f"resume={folder}")

    def test_that_the_command_names_is_used(self, checked: Checked, store_run: StoreRun, tmp_path: Path) -> None:
        typed = f"logger.csv.save_dir={tmp_path / 'elsewhere'}"
        assert checked(f"resume={store_run(typed)}", typed) == checked(typed)

    def test_the_runs_that_are_judged_again_are_those_of_the_command(
        self, checked: Checked, store_run: StoreRun
    ) -> None:
        folder = store_run("job=rescore", "runs=mine")
        with pytest.raises(UserError, match="has runs=mine"):
            checked(f"resume={folder}")
        assert checked(f"resume={folder}", "runs=mine").runs == "mine"

    def test_what_is_fetched_is_decided_by_the_command(self, checked: Checked, store_run: StoreRun) -> None:
        folder = tampered(store_run(), "data.url", "https://a-stranger.example")
        assert checked(f"resume={folder}").data.url == checked().data.url
        assert checked(f"resume={folder}", "data.url=https://mine").data.url == "https://mine"


class TestValues:
    def test_no_interpolation_is_resolved(
        self, checked: Checked, store_run: StoreRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_TOKEN", "hunter2")
        folder = tampered(store_run(), "task.name", "${oc.env:SECRET_TOKEN}")
        with pytest.raises(UserError, match=r"contains the interpolation '\$\{oc\.env:SECRET_TOKEN\}'") as caught:
            checked(f"resume={folder}", f"trust={folder}")
        assert "hunter2" not in str(caught.value)

    @pytest.mark.slow_after(2)
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("!!python/object/apply:os.system ['touch stolen.txt']", "is damaged"),
            ("!!set {a, b}", "is no plain value"),
            ("!!binary aGk=", "is no plain value"),
            ("!!pairs [a: {_target_: os.system}]", "is no plain value"),
            ("&a [*a]", "is damaged"),
            ("[" * 2000 + "]" * 2000, "is damaged"),
        ],
    )
    def test_other_types_are_refused(self, checked: Checked, store_run: StoreRun, value: str, message: str) -> None:
        folder = store_run()
        with (folder / "config.yaml").open("a") as file:
            file.write(f"more: {value}\n")
        with pytest.raises(UserError, match=rf"^[^\n]*config\.yaml [^\n]*{message}[^\n]*$"):
            checked(f"resume={folder}")

    def test_a_small_file_of_very_many_values_is_refused(self, checked: Checked, store_run: StoreRun) -> None:
        folder = store_run()
        levels = [f"l{place}: &l{place} [{', '.join([f'*l{place - 1}'] * 9)}]" for place in range(1, 12)]
        with (folder / "config.yaml").open("a") as file:
            file.write("\n".join(["l0: &l0 []", *levels]) + "\n")
        with pytest.raises(UserError, match="holds more values than any run writes"):
            checked(f"resume={folder}")
