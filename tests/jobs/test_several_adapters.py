"""``job=evaluate`` with several adapters, also of the peft library: the same results as with each alone."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import neuroada
from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.runs.folder_names import run_folder
from neuroada.sparse.errors import AdapterError
from neuroada.training.distributed.launch import launch

MakeRun = Callable[..., RunConfig]


def load_backbone(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture
def adapters(backbone: Path, tmp_path: Path) -> list[Path]:
    """Two adapters of the backbone with other columns, k and values."""
    folders = []
    for seed, (top_k, selection) in enumerate([(2, "magnitude"), (5, "random")]):
        model = load_backbone(backbone)
        config = neuroada.NeuroAdaConfig(top_k=top_k, target_modules=["q_proj", "up_proj"], selection=selection)
        adapter = neuroada.attach(model, config)
        generator = torch.Generator().manual_seed(seed)
        for values_OK in adapter.parameters():
            values_OK.data.normal_(std=0.3, generator=generator)
        adapter.save(tmp_path / f"adapter_{seed}")
        folders.append(tmp_path / f"adapter_{seed}")
    return folders


@pytest.fixture
def lora(backbone: Path, tmp_path: Path) -> Path:
    """A LoRA adapter with random weights, as peft saves it."""
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(load_backbone(backbone), config).save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


def several(adapters: list[Path]) -> str:
    return f"adapter=[{','.join(map(str, adapters))}]"


def contents(folder: Path) -> dict[str, Any]:
    """What a run wrote, without times and paths."""
    files: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "logs" not in path.parts
    }
    result = json.loads(files["result.json"])
    files["result.json"] = {key: result[key] for key in ("config", "content", "budget", "metrics")}
    return files


class TestSeveral:
    @pytest.mark.slow
    def test_each_ends_as_if_it_were_alone(
        self, make_run: MakeRun, adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loads = []
        load = loading.load_model
        monkeypatch.setattr(loading, "load_model", lambda *given: loads.append(given) or load(*given))
        evaluate(make_run("job=evaluate", several(adapters)), tmp_path / "together")
        assert len(loads) == 1
        written = []
        for path in adapters:
            run = make_run("job=evaluate", f"adapter={path}")
            place = run_folder(dataclasses.asdict(run))
            evaluate(run, tmp_path / "alone" / place)
            assert contents(tmp_path / "together" / place) == contents(tmp_path / "alone" / place)
            written.append(contents(tmp_path / "together" / place)["predictions/boolq.jsonl"])
        assert written[0] != written[1]

    def test_adapters_of_other_methods_are_scored_on_one_backbone(
        self, make_run: MakeRun, adapters: list[Path], lora: Path, tmp_path: Path
    ) -> None:
        train = ("trainer.max_steps=1", "evaluation.limit=1", "optimizer.weight_decay=0", "optimizer.lr=0.1")
        finetune(make_run("method=masked", *train), tmp_path / "masked")
        given = [lora, adapters[0], tmp_path / "masked" / "adapter"]
        scoring = ("job=evaluate", "evaluation.limit=3", "model.dtype=float32")
        evaluate(make_run(*scoring, several(given)), tmp_path / "together")
        for path in given:
            run = make_run(*scoring, f"adapter={path}")
            place = run_folder(dataclasses.asdict(run))
            evaluate(run, tmp_path / "alone" / place)
            assert contents(tmp_path / "together" / place) == contents(tmp_path / "alone" / place)

    def test_what_is_finished_is_not_done_again(self, make_run: MakeRun, adapters: list[Path], tmp_path: Path) -> None:
        evaluate(make_run("job=evaluate", several(adapters[:1])), tmp_path)
        (first,) = tmp_path.glob("evaluate/**/result.json")
        before = first.stat().st_mtime_ns
        evaluate(make_run("job=evaluate", several(adapters)), tmp_path)
        assert first.stat().st_mtime_ns == before
        assert len(list(tmp_path.glob("evaluate/**/result.json"))) == 2

    def test_a_damaged_one_is_named_after_the_whole_ones_are_done(
        self, make_run: MakeRun, adapters: list[Path], tmp_path: Path
    ) -> None:
        (adapters[1] / "adapter_model.safetensors").write_bytes(b"cut")
        with pytest.raises(AdapterError, match=r"adapter_1/adapter_model\.safetensors is damaged or cut off"):
            evaluate(make_run("job=evaluate", several(adapters)), tmp_path)
        assert len(list(tmp_path.glob("evaluate/**/result.json"))) == 1

    @pytest.mark.slow
    def test_two_ranks_score_the_same(self, make_run: MakeRun, adapters: list[Path], tmp_path: Path) -> None:
        evaluate(make_run("job=evaluate", several(adapters)), tmp_path / "one")
        ranks = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=2")
        launch(make_run("job=evaluate", several(adapters), *ranks), tmp_path / "two")
        places = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").glob("evaluate/**/metrics.json")]
        assert len(places) == 2
        for place in places:
            assert (tmp_path / "two" / place).read_text() == (tmp_path / "one" / place).read_text()


class TestPeft:
    @pytest.mark.slow
    def test_it_scores_as_the_checkpoint_that_peft_merges(
        self, make_run: MakeRun, lora: Path, backbone: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        merged = peft.PeftModel.from_pretrained(load_backbone(backbone), lora).merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        tokenizer.save_pretrained(tmp_path / "merged")
        run = make_run("job=evaluate", f"adapter={lora}")
        evaluate(run, tmp_path / "lora_run")
        evaluate(make_run("job=evaluate", f"model.name_or_path={tmp_path / 'merged'}"), tmp_path / "merged_run")
        evaluate(make_run("job=evaluate"), tmp_path / "base_run")
        scored, expected, base = (contents(tmp_path / f"{name}_run") for name in ("lora", "merged", "base"))
        scored_texts, expected_texts, base_texts = (
            [json.loads(line)["generation"] for line in found["predictions/boolq.jsonl"].splitlines()]
            for found in (scored, expected, base)
        )
        assert scored_texts == expected_texts != base_texts
        assert scored["result.json"]["config"]["method"]["name"] == "lora"
        assert scored["result.json"]["budget"]["trainable"] == 2 * 2 * (64 + 64)  # layers x rank x (inputs + outputs)
        assert scored["result.json"]["content"]["adapter"].startswith("sha256:")
        assert "/lora-" in run_folder(dataclasses.asdict(run))

    def test_without_the_library_it_says_what_to_install(
        self, make_run: MakeRun, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(UserError, match=r"needs the peft library; pip install 'neuroada\[peft\]'"):
            evaluate(make_run("job=evaluate", f"adapter={lora}"), tmp_path / "run")

    def test_a_damaged_one_is_named_before_weights_are_read(
        self, make_run: MakeRun, lora: Path, tmp_path: Path
    ) -> None:
        (lora / "adapter_model.safetensors").write_bytes(b"cut")
        with pytest.raises(UserError, match=r"lora/adapter_model\.safetensors is damaged"):
            evaluate(make_run("job=evaluate", f"adapter={lora}"), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_one_without_layers_is_refused_before_weights_are_read(
        self, make_run: MakeRun, backbone: Path, tmp_path: Path
    ) -> None:
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
        peft.get_peft_model(load_backbone(backbone), config).save_pretrained(tmp_path / "prompt")
        with pytest.raises(UserError, match="PROMPT_TUNING adds tokens to the input and no layers"):
            evaluate(make_run("job=evaluate", f"adapter={tmp_path / 'prompt'}"), tmp_path / "run")
