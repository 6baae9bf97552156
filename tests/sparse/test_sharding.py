"""An adapter on a model sharded over two ranks: the values, files and scores of one process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

import neuroada

from .conftest import make_llama

RANKS = Path(__file__).parent / "sharded_ranks.py"
pytestmark = [pytest.mark.fsdp, pytest.mark.slow]  # two processes train every case

FP32_CASES = ("k1", "k5", "k1_checkpointing", "k5_checkpointing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of two ranks, see sharded_ranks.py. The down projections have 45 inputs, gate and up 45 rows."""
    folder = tmp_path_factory.mktemp("sharded")
    make_llama().save_pretrained(folder / "llama")
    given = neuroada.attach(backbone(folder), neuroada.NeuroAdaConfig(top_k=3))
    with torch.no_grad():
        for values in given.parameters():
            values.normal_(std=0.1)
    given.sync()
    given.save(folder / "given")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    completed = subprocess.run([*torchrun, str(RANKS), str(folder)], capture_output=True, text=True, timeout=240)
    assert completed.returncode == 0, completed.stderr
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    """The outcome of each case, for one process and for two ranks."""
    outcomes: dict[str, Any] = torch.load(folder / "results.pt", weights_only=False)
    return outcomes


def backbone(folder: Path, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder / "llama", dtype=dtype)
    return model.eval()


@pytest.mark.parametrize("case", FP32_CASES)
def test_ten_steps_end_with_the_values_of_one_process(results: dict[str, Any], case: str) -> None:
    one, two = results[case]["one"], results[case]["two"]
    assert one["losses"][-1] < one["losses"][0] - 0.3
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-6, atol=0)
    for name, values in one["values"].items():
        torch.testing.assert_close(two["values"][name], values, rtol=0, atol=1e-5)
        torch.testing.assert_close(two["weights"][name], one["weights"][name], rtol=0, atol=1e-5)


def test_values_stay_in_fp32_over_a_bf16_backbone(results: dict[str, Any]) -> None:
    one, two = results["k5_bf16"]["one"], results["k5_bf16"]["two"]
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-6, atol=0)
    for name, values in one["values"].items():
        assert two["values"][name].dtype == torch.float32
        assert two["weights"][name].dtype == torch.bfloat16
        torch.testing.assert_close(two["values"][name], values, rtol=0, atol=1e-5)
    assert 0 < two["rounded_away"] == pytest.approx(one["rounded_away"], abs=1e-3)


def test_rank_holds_its_rows_alone(results: dict[str, Any]) -> None:
    rows = results["k1"]["two"]["local_rows"]
    assert rows["model.layers.0.self_attn.q_proj"] == 16
    assert rows["model.layers.0.mlp.up_proj"] == 23  # of 45; the other rank has 22


@pytest.mark.parametrize("case", FP32_CASES)
def test_budget_and_fingerprint_are_those_of_the_whole_model(results: dict[str, Any], case: str) -> None:
    one, two = results[case]["one"], results[case]["two"]
    assert two["budget"] == one["budget"]
    assert two["fingerprint"] == one["fingerprint"]


@pytest.mark.parametrize("case", [*FP32_CASES, "k5_bf16"])
def test_adapter_saved_from_shards_loads_into_a_whole_model(results: dict[str, Any], folder: Path, case: str) -> None:
    two = results[case]["two"]
    dtype = two["logits"].dtype
    model = backbone(folder, dtype)
    adapter = neuroada.load(model, folder / case)
    for name, layer in adapter.layers.items():
        assert torch.equal(layer.weight, two["weights"][name])
    ids = torch.randint(97, (4, 12), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(ids).logits, two["logits"])


def test_adapter_saved_by_one_process_is_loaded_and_then_sharded(results: dict[str, Any], folder: Path) -> None:
    model = backbone(folder)
    neuroada.load(model, folder / "given")
    ids = torch.arange(10)[None]
    assert torch.equal(results["given"]["logits"], model(ids).logits)
    generated = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(results["given"]["generated"], generated)


def test_base_weights_loaded_again_keep_the_adapter(results: dict[str, Any]) -> None:
    assert torch.equal(results["given"]["reloaded"], results["given"]["logits"])


@pytest.mark.parametrize("architecture", ["tied", "biases", "capped", "experts"])
def test_other_architectures_train_as_in_one_process(results: dict[str, Any], architecture: str) -> None:
    one, two = results[architecture]["one"], results[architecture]["two"]
    assert one["losses"][-1] < one["losses"][0]
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-6, atol=0)
    torch.testing.assert_close(two["states"], one["states"], rtol=0, atol=1e-4)


def test_shards_are_saved_to_the_bytes_that_were_loaded(results: dict[str, Any], folder: Path) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (folder / "given_again" / name).read_bytes() == (folder / "given" / name).read_bytes()


@pytest.mark.parametrize("action", ["merge", "detach", "shard", "prepare", "switch"])
def test_what_needs_the_whole_model_is_refused(results: dict[str, Any], action: str) -> None:
    refusal = results["given"]["refusals"][action]
    assert refusal.startswith(f"{action}(): the model is sharded over ranks; save() the adapter")


def test_model_sharded_by_others_is_refused(results: dict[str, Any]) -> None:
    assert results["foreign"] == "0: its weight was sharded without its bypass; use adapter.shard(mesh)"


def test_layer_with_fewer_rows_than_ranks_trains_too(results: dict[str, Any]) -> None:
    one, two = results["narrow"]["one"], results["narrow"]["two"]
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-6)


def test_weights_columns_and_values_are_gathered_twice_and_value_gradients_reduced_once(
    results: dict[str, Any],
) -> None:
    sent = results["traffic"]
    # Four projections have 45 rows, which two ranks hold as 46: 32 bf16 weights, 2 columns and 2 values a row.
    padding = 4 * (32 * 2 + 2 * (4 + 4))
    gathered = sent["weight_bytes"] + sent["num_values"] * (4 + 4) + padding
    reduced = sent["num_values"] * 4 + 4 * 2 * 4
    assert sent["passes"] == {"_allgather_base_": 2 * gathered, "_reduce_scatter_base_": reduced}


def test_optimizer_step_and_rewrite_send_nothing(results: dict[str, Any]) -> None:
    assert results["traffic"]["rewritten"]
    assert results["traffic"]["step"] == {}
