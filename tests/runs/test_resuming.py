"""``resume=<run folder>``: the stored configuration is used, and overrides must not change it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.runs.stored_config import read_config

Checked = Callable[..., RunConfig]
StoreRun = Callable[..., Path]


class TestResume:
    def test_the_stored_configuration_is_taken_whole(self, checked: Checked, store_run: StoreRun) -> None:
        overrides = ("budget=top5", "seed=7", "optimizer.lr=0.5", "data.dir=/elsewhere", "callbacks=none")
        folder = store_run(*overrides)
        assert checked(f"resume={folder}") == checked(*overrides)

    @pytest.mark.slow_after(3)
    @pytest.mark.parametrize(
        "override",
        [
            "seed=7",
            "budget=top5",
            "budget.top_k=5",
            "model=bundled",
            "trainer=default",
            "optimizer.lr=0.01",
            "evaluation.limit=null",
            "hydra.job.name=other",
        ],
    )
    def test_what_is_stored_may_be_repeated(self, checked: Checked, store_run: StoreRun, override: str) -> None:
        folder = store_run("budget=top5", "seed=7", "optimizer.lr=0.01")
        assert checked(f"resume={folder}", override).seed == 7

    @pytest.mark.slow_after(2)
    @pytest.mark.parametrize(
        ("override", "change"),
        [
            ("seed=8", "seed: 7 there, 8 here"),
            ("budget=top1", "budget.top_k: 5 there, 1 here"),
            ("optimizer.lr=0.1", "optimizer.lr: 0.01 there, 0.1 here"),
            ("evaluation.limit=3", "evaluation.limit: null there, 3 here"),
            ("data.dir=/other", "data.dir: data there, /other here"),
            ("job=evaluate", "job.name: finetune there, evaluate here"),
            ("debug=one_step", "trainer.max_steps: -1 there, 1 here"),
            ("+typo=1", "typo: null there, 1 here"),
            ("sweep=seeds", "seed: 7 there, 42 here"),
        ],
    )
    def test_a_changed_key_is_refused_with_both_values(
        self, checked: Checked, store_run: StoreRun, override: str, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NEUROADA_DATA", raising=False)
        folder = store_run("budget=top5", "seed=7", "optimizer.lr=0.01")
        with pytest.raises(UserError) as caught:
            checked(f"resume={folder}", override)
        assert str(caught.value).startswith(f"resume={folder}: a resumed run keeps its configuration, but ")
        assert change in str(caught.value)

    def test_an_experiment_may_be_repeated(self, checked: Checked, store_run: StoreRun) -> None:
        folder = store_run("experiment=llama_7b/math_top1")
        assert checked(f"resume={folder}", "experiment=llama_7b/math_top1").model.name == "llama_7b"
        with pytest.raises(UserError, match=r"budget\.top_k: 1 there, 20 here"):
            checked(f"resume={folder}", "experiment=llama_7b/math_top20")

    def test_a_run_that_once_started_over_is_continued(self, checked: Checked, store_run: StoreRun) -> None:
        assert checked(f"resume={store_run('resume=never')}").resume == "auto"

    def test_other_folders_are_refused(self, checked: Checked, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="resume=nevr: give auto, never, or a run folder; there is no nevr/config"):
            checked("resume=nevr")
        with pytest.raises(UserError, match=r"there is no .*config\.yaml to continue from"):
            checked(f"resume={tmp_path}")

    @pytest.mark.parametrize("content", ["a: [1", "- 1\n- 2", "5", "", "\x00", "seed: 42"])
    def test_a_damaged_configuration_is_refused(self, checked: Checked, tmp_path: Path, content: str) -> None:
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(UserError, match=r"config\.yaml is (damaged|not a configuration)"):
            checked(f"resume={tmp_path}")

    def test_a_configuration_spoilt_by_hand_is_checked(self, checked: Checked, store_run: StoreRun) -> None:
        folder = store_run()
        stored = read_config(folder)
        stored["budget"]["top_k"] = 0
        del stored["scheduler"]
        (folder / "config.yaml").write_text(yaml.safe_dump(stored))
        with pytest.raises(UserError) as caught:
            checked(f"resume={folder}")
        assert str(caught.value).splitlines()[1:] == [
            "  - budget.top_k=0: must be at least 1",
            "  - scheduler: has no value",
        ]
