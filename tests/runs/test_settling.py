"""What ``adapter`` sets and rejects, and what an override of the backbone or budget replaces."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.runs.adapter_origin import adapter_directory
from neuroada.runs.folder_names import run_folder
from neuroada.runs.settling import runs_of

Checked = Callable[..., RunConfig]
StoreRun = Callable[..., Path]
StoreAdapter = Callable[..., Path]


class TestBase:
    @pytest.mark.parametrize("overrides", [(), ("method=none",), ("budget=top20",)])
    def test_without_an_adapter_the_base_is_scored(self, checked: Checked, overrides: tuple[str, ...]) -> None:
        assert checked("job=evaluate", *overrides).method["name"] == "none"

    def test_a_method_without_an_adapter_is_refused(self, checked: Checked) -> None:
        with pytest.raises(UserError, match="method=lora: job=evaluate trains nothing; give an adapter"):
            checked("job=evaluate", "method=lora")

    def test_a_method_that_trains_nothing_is_an_evaluation(self, checked: Checked) -> None:
        assert checked("method=none").job.name == "evaluate"
        assert checked("method=none", "job=budget").job.name == "budget"


@pytest.fixture
def run_with_adapter(store_run: StoreRun, store_adapter: StoreAdapter) -> Path:
    """A finished fine-tune of LLaMA on math, with non-default values everywhere."""
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
        assert (run.model, run.task, run.budget) == (trained.model, trained.task, trained.budget)
        assert run.method == {"name": "neuroada", "label": "neuroada-k1", "selection": "random", "selection_seed": 5}
        assert run.evaluation.limit is None

    def test_a_slash_at_the_end_names_no_other_adapter(self, checked: Checked, run_with_adapter: Path) -> None:
        assert checked("job=evaluate", f"adapter={run_with_adapter}/").adapter == str(run_with_adapter)

    @pytest.mark.slow_after(4)
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

    @pytest.mark.slow_after(3)
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
        with pytest.raises(UserError, match=r"method=none: the adapter in .* was trained with neuroada; leave it out"):
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

    @pytest.mark.parametrize("content", ["{", "[]", "5", "null", "", '{"top_k": 1}', '{"peft_type": 1}'])
    def test_a_damaged_description_is_refused(
        self, checked: Checked, store_adapter: StoreAdapter, content: str
    ) -> None:
        directory = store_adapter()
        (directory / "adapter_config.json").write_text(content)
        with pytest.raises(UserError, match=r"adapter_config\.json is (damaged|not an adapter's)"):
            checked("job=evaluate", f"adapter={directory}")

    def test_values_of_the_wrong_type_are_refused(self, checked: Checked, store_adapter: StoreAdapter) -> None:
        with pytest.raises(UserError, match=r"adapter_config\.json is damaged \(field 'top_k' should be a valid int"):
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

    @pytest.mark.slow_after(1)
    @pytest.mark.parametrize("override", ["model.dtype=bfloat16", "model.revision=v2", "task=math", "model=llama_7b"])
    def test_two_that_cannot_share_a_model_are_named(
        self, checked: Checked, store_run: StoreRun, store_adapter: StoreAdapter, override: str
    ) -> None:
        target = "model.target_modules=[q_proj,v_proj]"
        first, second = store_run(target, name="first"), store_run(override, target, name="second")
        store_adapter(first)
        store_adapter(second)
        with pytest.raises(UserError, match=rf"adapter={first} and {second} cannot be used on one loaded model \(\w+"):
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
        header = {
            "peft_type": "LORA",
            "base_model_name_or_path": "nobody/Some-Model.7B",
            "revision": None,
            "r": 4,
            "target_modules": ["q_proj"],
        }
        (directory / "adapter_config.json").write_text(json.dumps(header))
        return directory

    def test_it_names_its_base_and_its_method(self, checked: Checked, lora: Path) -> None:
        run = checked("job=evaluate", f"adapter={lora}")
        assert (run.model.name, run.model.name_or_path) == ("some_model_7b", "nobody/Some-Model.7B")
        assert run.method == {"name": "lora", "label": "lora-r4"}
        assert run.model.target_modules == ["q_proj"]
        assert run.adapter == str(lora)

    def test_a_run_of_this_project_around_it_knows_the_method(
        self, checked: Checked, lora: Path, store_run: StoreRun
    ) -> None:
        folder = store_run("method=dora", "budget.match=neuroada", "budget.top_k=5")
        lora.rename(folder / "adapter")
        assert checked("job=merge", f"adapter={folder}").method == {"name": "dora", "label": "dora-neuroada-k5"}

    def test_a_typed_base_wins(self, checked: Checked, lora: Path) -> None:
        assert checked("job=evaluate", f"adapter={lora}", "model=llama_7b").model.name == "llama_7b"

    @pytest.mark.parametrize("override", ["budget=top5", "budget.trainable=100", "method.settings.r=2"])
    def test_its_size_and_settings_cannot_be_changed(self, checked: Checked, lora: Path, override: str) -> None:
        with pytest.raises(UserError, match=rf"{override.partition('=')[0]}: the adapter in .* has its own size"):
            checked("job=evaluate", "method=lora", override, f"adapter={lora}")

    def test_it_is_scored_in_turn_with_others(
        self, checked: Checked, lora: Path, store_run: StoreRun, store_adapter: StoreAdapter
    ) -> None:
        own = store_run("model.name_or_path=nobody/Some-Model.7B", "model.name=some_model_7b", name="own")
        store_adapter(own)
        run = checked("job=evaluate", f"adapter=[{lora},{own}]", "model.revision=null")
        assert [one.method["label"] for one, _ in runs_of(run, Path("below"))] == ["lora-r4", "neuroada-k1"]


class TestFolderOfSomebodyElse:
    """Nothing from an untrusted run folder is executed, interpolated, or allowed to name a path."""

    @pytest.fixture
    def received(self, store_run: StoreRun, store_adapter: StoreAdapter) -> Path:
        folder = store_run()
        store_adapter(folder)
        return folder

    def changed(self, folder: Path, old: str, new: str) -> Path:
        file = folder / "config.yaml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        return folder

    @pytest.mark.parametrize("job", ["evaluate", "merge"])
    def test_no_class_of_it_is_named_by_the_run(self, checked: Checked, received: Path, job: str) -> None:
        evil = "_target_: os.makedirs\n  settings:\n    _target_: numpy.savetxt\n    fname: stolen\n"
        self.changed(received, "_target_: neuroada.methods.neuroada.NeuroAda\n", evil)
        run = checked(f"job={job}", f"adapter={received}")
        assert run.method == {
            "name": "neuroada",
            "label": "neuroada-k1",
            "selection": "magnitude",
            "selection_seed": 0,
        }

    @pytest.mark.parametrize("job", ["evaluate", "merge"])
    @pytest.mark.parametrize("old", ["  revision: null", "seed: 42"])
    def test_an_interpolation_is_refused_and_not_resolved(
        self, checked: Checked, received: Path, job: str, old: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_TOKEN", "hunter2")
        self.changed(received, old, f"{old.partition(':')[0]}: ${{oc.env:SECRET_TOKEN}}")
        with pytest.raises(UserError) as caught:
            checked(f"job={job}", f"adapter={received}")
        assert "contains the interpolation" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.slow_after(3)
    @pytest.mark.parametrize("job", ["evaluate", "merge"])
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("name: neuroada\n", "name: ../../escaped\n"),
            ("label: neuroada-k1", "label: ../../escaped"),
            ("name: bundled\n  name_or_path", "name: ../../escaped\n  name_or_path"),
        ],
    )
    def test_a_name_that_would_be_a_path_is_refused(
        self, checked: Checked, composed: Callable[..., Any], received: Path, job: str, old: str, new: str
    ) -> None:
        self.changed(received, old, new)
        overrides = (f"job={job}", f"adapter={received}")
        with pytest.raises(UserError, match=r"(name|label)=\.\./\.\./escaped: use letters"):
            checked(*overrides)
        assert composed(*overrides).hydra.run.dir == "outputs/rejected"


class TestBackboneByItsPath:
    def test_without_layers_named_those_of_the_default_model_do_not_count(self, checked: Checked) -> None:
        assert checked("model.name_or_path=gpt2").model.target_modules is None
        assert checked("model.name_or_path=gpt2", "model.target_modules=[c_attn]").model.target_modules == ["c_attn"]
        typed = checked("model=llama_7b", "model.name_or_path=mirror/llama")
        assert typed.model.target_modules == checked("model=llama_7b").model.target_modules


class TestBudget:
    @pytest.mark.parametrize(
        ("override", "key"), [("budget.trainable=1000", "trainable"), ("budget.percent=0.5", "percent")]
    )
    def test_a_typed_size_replaces_the_group_s(self, checked: Checked, override: str, key: str) -> None:
        budget = checked("budget=top20", override).budget
        assert budget.top_k is None
        assert getattr(budget, key) is not None

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (
                ["budget.trainable=1000", "budget.top_k=2"],
                "budget: top_k=2 and trainable=1000 were both given; give one",
            ),
            (["budget.trainable=1000", "budget.percent=1"], "budget: trainable=1000 and percent=1.0 were both given"),
            (["budget.match=lora"], "budget.match=lora: choose one of neuroada, masked"),
            (["budget.match=neuroada", "budget.trainable=9"], "budget.match=neuroada: needs budget.top_k"),
            (["budget.percent=0"], "budget.percent=0.0: must be above 0"),
            (["budget.trainable=0"], "budget.trainable=0: must be at least 1"),
        ],
    )
    def test_sizes_that_contradict_each_other_are_refused(
        self, checked: Checked, overrides: list[str], message: str
    ) -> None:
        with pytest.raises(UserError) as caught:
            checked(*overrides)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("overrides", "label"),
        [
            ([], "neuroada-k1"),
            (["budget.trainable=1000"], "neuroada-n1000"),
            (["budget.percent=0.5"], "neuroada-p0.5"),
            (["method=lora"], "lora-r8"),
            (["method=lora", "method.settings.r=16"], "lora-r16"),
            (["method=lora", "budget.match=neuroada", "budget.top_k=5"], "lora-neuroada-k5"),
            (["method=masked", "budget.match=neuroada", "budget.top_k=5"], "masked-k5"),
            (["method=supertuning"], "supertuning-s0.99"),
            (["method=ia3"], "ia3"),
        ],
    )
    def test_the_label_tells_the_size(self, checked: Checked, overrides: list[str], label: str) -> None:
        assert checked(*overrides).method["label"] == label


def test_an_adapter_is_found_in_its_run(store_run: StoreRun, store_adapter: StoreAdapter) -> None:
    folder = store_run()
    directory = store_adapter(folder)
    assert adapter_directory(folder) == adapter_directory(directory) == directory


def test_an_adapter_that_is_served_twice_under_two_names_is_refused(
    settled: Callable[..., Any], store_run: StoreRun, store_adapter: StoreAdapter
) -> None:
    folder = store_run()
    store_adapter(folder)
    with pytest.raises(UserError, match=r"is given twice, and a server has each adapter once; leave one out, and its"):
        settled("job=serve", f"adapter=[{folder},{folder}]", "serve.names=[a,b]")
