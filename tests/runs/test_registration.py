"""Hydra names the run folder before any check: the same in single runs and sweeps, whatever is wrong."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from neuroada.config.schema import RunConfig
from neuroada.runs.folder_names import run_folder
from neuroada.runs.registration import without_hydra

Composed = Callable[..., DictConfig]
Checked = Callable[..., RunConfig]


@pytest.mark.slow_after(3)
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("experiment=llama_7b/math_top20", "seed=2"),
        ("job=evaluate",),
        ("job=evaluate", "method=none", "budget=top5"),
        ("job=budget", "model.name_or_path=some/Model-7B"),
        ("resume=never",),
    ],
)
def test_single_runs_and_sweeps_share_their_folders(
    composed: Composed, checked: Checked, overrides: tuple[str, ...]
) -> None:
    hydra = composed(*overrides).hydra
    folder = run_folder(dataclasses.asdict(checked(*overrides)))
    assert hydra.run.dir == f"outputs/{folder}"
    assert (hydra.sweep.dir, hydra.sweep.subdir) == ("outputs", folder)


def test_a_model_given_by_path_names_its_folder(composed: Composed) -> None:
    assert composed("model.name_or_path=some/Model-7B").hydra.run.dir.startswith("outputs/finetune/model_7b/bundled/")
    assert composed("model.name_or_path=a/b", "model.name=c").hydra.run.dir.startswith("outputs/finetune/c/bundled/")


@pytest.mark.slow_after(6)
@pytest.mark.parametrize(
    "override",
    [
        "~model",
        "~budget",
        "~method",
        "~method.label",
        "method.label=../../x",
        "model.name=../../x",
        "job.folder='{nowhere}-{digest}'",
        "job.depends_on=???",
        "~job",
        "budget.top_k=???",
        "model.name_or_path=${nowhere}",
        "resume=${nowhere}",
        "resume=no/such/folder",
        "resume=/etc/passwd",
        "adapter=no/such/folder",
        "adapter=/etc/passwd",
    ],
)
def test_a_broken_configuration_gets_a_folder_of_no_run(composed: Composed, override: str) -> None:
    hydra = composed(override).hydra
    assert (hydra.run.dir, hydra.sweep.subdir) == ("outputs/rejected", "rejected")


def test_a_resumed_run_keeps_its_folder(composed: Composed, store_run: Callable[..., Path]) -> None:
    folder = store_run("budget=top5", name="anywhere")
    hydra = composed(f"resume={folder}").hydra
    assert hydra.run.dir == str(folder)
    assert hydra.sweep.subdir == composed("budget=top5").hydra.sweep.subdir


def test_nothing_is_written_by_hydra_itself(composed: Composed) -> None:
    hydra = composed().hydra
    assert hydra.output_subdir is None
    assert not hydra.job.chdir
    assert all("Stream" in h["class"] or "Rich" in h["class"] for h in hydra.job_logging.handlers.values())


def test_a_run_does_not_see_hydra_s_own_node(composed: Composed) -> None:
    config = composed("model.name_or_path=${nowhere}")
    assert set(config) - set(without_hydra(config)) == {"hydra"}
