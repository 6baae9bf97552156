"""What ``resume`` and ``adapter`` bring in, and what they refuse."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.runs.earlier import adapter_directory, read_config, runs_of
from neuroada.runs.identity import run_folder

Checked = Callable[..., RunConfig]
StoreRun = Callable[..., Path]
StoreAdapter = Callable[..., Path]


class TestResume:
    def test_the_stored_configuration_is_taken_whole(self, checked: Checked, store_run: StoreRun) -> None:
        overrides = ("budget=top5", "seed=7", "optimizer.lr=0.5", "data.dir=/elsewhere", "callbacks=none")
        folder = store_run(*overrides)
        assert checked(f"resume={folder}") == checked(*overrides)

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

    def test_a_run_of_a_version_without_declarations_is_continued(self, checked: Checked, store_run: StoreRun) -> None:
        folder = store_run("seed=7")
        stored = read_config(folder)
        del stored.job["depends_on"], stored.job["but_not_on"], stored.job["folder"], stored.method["label"]
        OmegaConf.save(stored, folder / "config.yaml")
        run = checked(f"resume={folder}")
        assert (run.seed, run.job, run.method["label"]) == (7, checked().job, "neuroada")

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
        stored.budget.top_k = 0
        del stored["scheduler"]
        OmegaConf.save(stored, folder / "config.yaml")
        with pytest.raises(UserError) as caught:
            checked(f"resume={folder}")
        assert str(caught.value).splitlines()[1:] == [
            "  - budget.top_k=0: must be at least 1",
            "  - scheduler: has no value",
        ]


class TestBase:
    @pytest.mark.parametrize("overrides", [(), ("method=none",), ("budget=top20",)])
    def test_without_an_adapter_the_base_is_scored(self, checked: Checked, overrides: tuple[str, ...]) -> None:
        assert checked("job=evaluate", *overrides).method["name"] == "none"

    def test_a_method_without_an_adapter_is_refused(self, checked: Checked) -> None:
        with pytest.raises(UserError, match="method=neuroada: job=evaluate trains nothing; give the adapter"):
            checked("job=evaluate", "method=neuroada")


@pytest.fixture
def run_with_adapter(store_run: StoreRun, store_adapter: StoreAdapter) -> Path:
    """A finished fine-tune of LLaMA on math, with values of its own everywhere."""
    folder = store_run(
        "experiment=llama_7b/math_top1",
        "model.target_modules=[q_proj,v_proj]",
        "model.dtype=bfloat16",
        "model.revision=v1",
        "method.selection=random",
        "method.selection_seed=5",
        "evaluation.limit=3",
    )
    store_adapter(folder, selection="random", seed=5, base_model_name_or_path="yahma/llama-7b-hf")
    return folder


class TestAdapterOfARun:
    @pytest.mark.parametrize("inner", ["", "adapter"])
    def test_base_task_method_and_budget_come_from_the_run(
        self, checked: Checked, run_with_adapter: Path, inner: str
    ) -> None:
        run = checked("job=evaluate", f"adapter={run_with_adapter / inner}")
        trained = checked(f"resume={run_with_adapter}")
        assert (run.model, run.task, run.budget, run.method) == (
            trained.model,
            trained.task,
            trained.budget,
            trained.method,
        )
        assert run.evaluation.limit is None

    def test_a_slash_at_the_end_names_no_other_adapter(self, checked: Checked, run_with_adapter: Path) -> None:
        assert checked("job=evaluate", f"adapter={run_with_adapter}/").adapter == str(run_with_adapter)

    @pytest.mark.parametrize(
        ("override", "group", "key", "value"),
        [
            ("model.dtype=float32", "model", "dtype", "float32"),
            ("model.revision=null", "model", "revision", None),
            ("model.name_or_path=mirror/llama-7b", "model", "name_or_path", "mirror/llama-7b"),
            ("model.name_or_path=mirror/Other", "model", "name", "other"),
            ("model=llama2_7b", "model", "name_or_path", "meta-llama/Llama-2-7b-hf"),
            ("model=llama2_7b", "model", "target_modules", ["q_proj", "v_proj"]),
            ("task=gsm8k", "task", "name", "gsm8k"),
            ("task.loss_on=all", "task", "name", "math"),
            ("task.benchmarks=[gsm8k]", "task", "benchmarks", ["gsm8k"]),
            ("method.selection=random", "budget", "top_k", 1),
            ("budget=top1", "budget", "top_k", 1),
        ],
    )
    def test_what_is_typed_wins(
        self, checked: Checked, run_with_adapter: Path, override: str, group: str, key: str, value: object
    ) -> None:
        run = checked("job=evaluate", f"adapter={run_with_adapter}", override)
        assert getattr(getattr(run, group), key) == value

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("budget=top5", "budget.top_k=5: the adapter in {} has 1; leave it out"),
            ("budget.top_k=2", "budget.top_k=2: the adapter in {} has 1; leave it out"),
            ("experiment=llama_7b/math_top20", "budget.top_k=20: the adapter in {} has 1; leave it out"),
            ("model.target_modules=[k_proj]", "model.target_modules=['k_proj']: the adapter in {} has ['q_proj', 'v"),
            ("method.selection=magnitude", "method.selection=magnitude: the adapter in {} has random; leave it out"),
        ],
    )
    def test_what_the_adapter_itself_decides_cannot_be_changed(
        self, checked: Checked, run_with_adapter: Path, override: str, message: str
    ) -> None:
        with pytest.raises(UserError) as caught:
            checked("job=evaluate", f"adapter={run_with_adapter}", override)
        assert str(caught.value).startswith(message.format(run_with_adapter / "adapter"))

    def test_no_method_and_an_adapter_contradict_each_other(self, checked: Checked, run_with_adapter: Path) -> None:
        with pytest.raises(UserError, match="method=none scores the bare base, but adapter="):
            checked("job=evaluate", f"adapter={run_with_adapter}", "method=none")

    def test_merging_takes_the_same(self, checked: Checked, run_with_adapter: Path) -> None:
        run = checked("job=merge", f"adapter={run_with_adapter}")
        assert (run.model.name_or_path, run.model.revision) == ("yahma/llama-7b-hf", "v1")

    def test_an_experiment_is_a_choice_of_all(self, checked: Checked, run_with_adapter: Path) -> None:
        run = checked("job=evaluate", f"adapter={run_with_adapter}", "experiment=llama2_7b/commonsense_top1")
        assert (run.model.name, run.task.name) == ("llama2_7b", "commonsense")

    @pytest.mark.parametrize(("typed", "expected"), [([], "bfloat16"), (["model.dtype=float32"], "float32")])
    def test_auto_means_the_precision_it_trained_in(
        self, checked: Checked, store_run: StoreRun, store_adapter: StoreAdapter, typed: list[str], expected: str
    ) -> None:
        folder = store_run("model.target_modules=[q_proj,v_proj]")
        store_adapter(folder)
        (folder / "result.json").write_text('{"content": {"dtype": "bfloat16"}}')
        run = checked("job=merge", f"adapter={folder}", *typed)
        assert run.model.dtype == expected


class TestAdapterOnItsOwn:
    def test_it_knows_its_base_method_and_budget(self, checked: Checked, store_adapter: StoreAdapter) -> None:
        run = checked("job=evaluate", f"adapter={store_adapter(top_k=5, selection='smallest', seed=3)}", "task=math")
        assert (run.model.name_or_path, run.model.revision) == ("nobody/Some-Model.7B", "abc123")
        assert (run.model.name, run.model.target_modules) == ("some_model_7b", ["q_proj", "v_proj"])
        assert (run.budget.top_k, run.task.name) == (5, "math")
        assert run.method == {
            "_target_": "neuroada.methods.methods.NeuroAda",
            "name": "neuroada",
            "label": "neuroada-k5",
            "selection": "smallest",
            "selection_seed": 3,
        }

    def test_of_a_base_without_a_name_the_model_is_as_typed(
        self, checked: Checked, store_adapter: StoreAdapter
    ) -> None:
        directory = store_adapter(base_model_name_or_path=None, revision=None)
        assert checked("job=evaluate", f"adapter={directory}", "model=llama_7b").model.name == "llama_7b"

    @pytest.mark.parametrize("content", ["{", "[]", "5", "null", "", '{"top_k": 1}', '{"peft_type": "NEUROADA"}'])
    def test_a_damaged_description_is_refused(
        self, checked: Checked, store_adapter: StoreAdapter, content: str
    ) -> None:
        directory = store_adapter()
        (directory / "adapter_config.json").write_text(content)
        with pytest.raises(UserError, match=r"adapter_config\.json is (damaged|not a NeuroAda adapter's)"):
            checked("job=evaluate", f"adapter={directory}")

    def test_values_of_the_wrong_type_are_refused(self, checked: Checked, store_adapter: StoreAdapter) -> None:
        with pytest.raises(UserError, match=r"budget\.top_k=many: "):
            checked("job=evaluate", f"adapter={store_adapter(top_k='many')}")

    def test_a_folder_without_an_adapter_is_refused(self, checked: Checked, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"adapter=.*: neither a run folder with adapter/ nor a folder with"):
            checked("job=evaluate", f"adapter={tmp_path}")


class TestSeveralAdapters:
    def test_each_is_the_run_that_it_would_be_alone(
        self, checked: Checked, store_run: StoreRun, store_adapter: StoreAdapter
    ) -> None:
        given = ("model.target_modules=[q_proj,v_proj]", "method.gradient=gemm")
        first, second = store_run(*given, name="first"), store_run(*given, "budget=top5", name="second")
        store_adapter(first)
        store_adapter(second, top_k=5, selection="random", seed=3)
        run = checked("job=evaluate", f"adapter=[{first}/,{second},{first}]")
        assert run.adapter == [str(first), str(second)]
        assert run_folder(dataclasses.asdict(run)) == "."
        for (one, place), path in zip(runs_of(run, Path("below")), (first, second), strict=True):
            alone = checked("job=evaluate", f"adapter={path}")
            assert one == alone
            assert place == Path("below") / run_folder(dataclasses.asdict(alone))

    def test_one_adapter_is_a_run_in_the_folder_given(self, checked: Checked, run_with_adapter: Path) -> None:
        run = checked("job=evaluate", f"adapter={run_with_adapter}")
        assert runs_of(run, Path("here")) == [(run, Path("here"))]

    @pytest.mark.parametrize("override", ["model.dtype=bfloat16", "model.revision=v2", "task=math", "model=llama_7b"])
    def test_two_that_cannot_share_a_model_are_named(
        self, checked: Checked, store_run: StoreRun, store_adapter: StoreAdapter, override: str
    ) -> None:
        target = "model.target_modules=[q_proj,v_proj]"
        first, second = store_run(target, name="first"), store_run(override, target, name="second")
        store_adapter(first)
        store_adapter(second)
        with pytest.raises(
            UserError, match=rf"adapter={first} and {second} cannot be scored on one loaded model \(\w+"
        ):
            checked("job=evaluate", f"adapter=[{first},{second}]")
        typed = override.replace("model=llama_7b", "model=bundled")
        assert checked("job=evaluate", f"adapter=[{first},{second}]", typed).adapter == [str(first), str(second)]

    @pytest.mark.parametrize(
        ("job", "message"), [("merge", "job=merge takes one adapter"), ("evaluate", "at least one")]
    )
    def test_none_and_too_many_are_refused(self, checked: Checked, job: str, message: str) -> None:
        given = "adapter=[]" if job == "evaluate" else "adapter=[a,b]"
        with pytest.raises(UserError, match=message):
            checked(f"job={job}", given)


class TestPeftAdapter:
    @pytest.fixture
    def lora(self, store_adapter: StoreAdapter) -> Path:
        directory = store_adapter()
        header = {"peft_type": "LORA", "base_model_name_or_path": "nobody/Some-Model.7B", "revision": None}
        (directory / "adapter_config.json").write_text(json.dumps(header))
        return directory

    def test_it_names_its_base_and_is_a_method(self, checked: Checked, lora: Path) -> None:
        run = checked("job=evaluate", f"adapter={lora}")
        assert (run.model.name, run.model.name_or_path) == ("some_model_7b", "nobody/Some-Model.7B")
        assert run.method["name"] == "peft-lora"
        assert run.adapter == str(lora)

    def test_a_typed_base_wins(self, checked: Checked, lora: Path) -> None:
        assert checked("job=evaluate", f"adapter={lora}", "model=llama_7b").model.name == "llama_7b"

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["job=evaluate", "budget=top5"], "budget: .* holds an adapter of the peft library"),
            (["job=merge"], "only job=evaluate can be done"),
        ],
    )
    def test_what_it_does_not_have_is_refused(
        self, checked: Checked, lora: Path, overrides: list[str], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            checked(*overrides, f"adapter={lora}")

    def test_it_is_scored_alone(self, checked: Checked, lora: Path) -> None:
        with pytest.raises(UserError, match="an adapter of the peft library is scored alone"):
            checked("job=evaluate", f"adapter=[{lora}]")


def test_an_adapter_is_found_in_its_run(store_run: StoreRun, store_adapter: StoreAdapter) -> None:
    folder = store_run()
    directory = store_adapter(folder)
    assert adapter_directory(folder) == adapter_directory(directory) == directory
