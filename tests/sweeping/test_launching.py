"""One process per job: how it is started, and what an optimising sweep gets back."""

import json
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from neuroada.config.errors import FailureElsewhere, UserError
from neuroada.runs.stop_signals import Interrupted
from neuroada.sweeping.command import command_of
from neuroada.sweeping.launching import JobProcesses
from neuroada.sweeping.objective import Stopped, as_exception_of_a_job, held_out_loss, objective
from neuroada.sweeping.queues import launch_elsewhere
from neuroada.sweeping.sweep_jobs import Job, State

from ..tiny_runs import Start

Composed = Callable[..., DictConfig]
MULTIRUN = OmegaConf.create({"mode": RunMode.MULTIRUN, "sweeper": {"direction": "minimize"}})
RUN = OmegaConf.create({"mode": RunMode.RUN, "sweeper": {}})


@pytest.fixture
def processes(composed: Composed) -> Callable[..., JobProcesses]:
    """The object that runs the jobs of a sweep, with these settings of the launcher."""

    def make(n_jobs: Any = 1, gpus: Any = None) -> JobProcesses:
        context = SimpleNamespace(config_loader=None)
        launcher: Any = SimpleNamespace(config=composed(), hydra_context=context, task_function=lambda config: None)
        return JobProcesses(launcher, n_jobs, gpus)

    return make


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A waiting job."""
    return Job(["sweep=topk", "budget.top_k=5"], "budget.top_k=5", tmp_path / "rejected", folder=tmp_path / "run")


def test_a_job_is_started_as_a_person_would_start_it(composed: Composed, job: Job) -> None:
    config = composed("hydra/launcher=one_gpu_each", "hydra.verbose=true", "hydra.sweep.dir=elsewhere", "seed=1,2")
    command = command_of(job, ["/somewhere/run.py"], config)
    assert command[:2] == [sys.executable, "/somewhere/run.py"]
    assert command[2:4] == ["--config-name", "config"]
    assert command[4] == "--config-path"
    own = ["sweep=topk", "budget.top_k=5", "hydra.mode=RUN", f'hydra.run.dir="{job.folder}"']
    assert command[6:] == ["hydra.verbose=true", *own]


@pytest.mark.parametrize("n_jobs", [0, -1, "two", 1.5])
def test_jobs_at_a_time_are_counted(processes: Callable[..., JobProcesses], n_jobs: Any) -> None:
    with pytest.raises(UserError, match=f"hydra.launcher.n_jobs={n_jobs}: must be a whole number of at least 1"):
        processes(n_jobs)


def test_gpus_that_are_visible_are_shared_out(
    processes: Callable[..., JobProcesses], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert processes(gpus="auto").gpus == ["2", "5"]
    assert processes(gpus=[0, 1, 2]).gpus == ["0", "1", "2"]


@pytest.mark.parametrize("gpus", [2, "0,1", True])
def test_gpus_are_a_list_of_ids(processes: Callable[..., JobProcesses], gpus: Any) -> None:
    with pytest.raises(
        UserError, match=rf"hydra.launcher.gpus={gpus}: give null, auto, or a list of ids, as in \[0,1\]"
    ):
        processes(gpus=gpus)


def test_one_gpu_each_needs_a_gpu(processes: Callable[..., JobProcesses], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="there is no GPU here; use hydra/launcher=processes"):
        processes(gpus="auto")


def test_a_job_on_several_devices_is_not_put_on_one_gpu(processes: Callable[..., JobProcesses], job: Job) -> None:
    job.values = {"trainer": {"devices": 4}}
    processes(gpus=[0]).run([job])
    assert job.state is State.REJECTED
    assert job.message.startswith("trainer.devices=4: hydra.launcher.gpus gives a job one GPU")


@pytest.mark.slow
def test_optuna_minimises_the_held_out_loss(start: Start, quick_run: Path, tmp_path: Path) -> None:
    ended = start("sweep=learning_rate_optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", program=quick_run)
    assert ended.returncode == 0, ended.stderr
    best = OmegaConf.load(tmp_path / "outputs" / "optimization_results.yaml")
    assert best.best_value == pytest.approx(abs(best.best_params["optimizer.lr"] - 0.002))
    losses = [json.loads(path.read_text())["validation"]["loss"] for path in tmp_path.rglob("result.json")]
    assert len(losses) == 2
    assert best.best_value == min(losses)


@pytest.mark.parametrize(
    ("result", "loss"),
    [(None, None), ({}, None), ({"validation": None}, None), ({"validation": {"loss": 1.5, "step": 3}}, 1.5)],
)
def test_the_held_out_loss_is_the_validation_s(result: Any, loss: float | None) -> None:
    assert held_out_loss(result) == loss


def test_without_a_held_out_loss_there_is_nothing_to_minimise(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"metrics": {"macro": 0.5}}')
    assert objective(tmp_path, RUN) is None  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has no held-out loss, which this sweep minimises"):
        objective(tmp_path, MULTIRUN)  # type: ignore[arg-type]


def test_a_job_in_a_process_that_goes_on_raises() -> None:
    with pytest.raises(FailureElsewhere, match=r"^no licence$"), as_exception_of_a_job(MULTIRUN):  # type: ignore[arg-type]
        raise SystemExit("no licence")
    with pytest.raises(FailureElsewhere, match="exit status 3"), as_exception_of_a_job(MULTIRUN):  # type: ignore[arg-type]
        raise SystemExit(3)
    with pytest.raises(SystemExit), as_exception_of_a_job(RUN):  # type: ignore[arg-type]
        raise SystemExit("no licence")


@pytest.mark.parametrize(
    ("mode", "launcher", "ending"),
    [
        (RunMode.RUN, "hydra._internal.core_plugins.basic_launcher.BasicLauncher", Interrupted),
        (RunMode.MULTIRUN, "hydra._internal.core_plugins.basic_launcher.BasicLauncher", Interrupted),
        (RunMode.MULTIRUN, "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher", Stopped),
        (RunMode.MULTIRUN, "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", Stopped),
    ],
)
def test_a_signal_to_a_job_ends_the_sweep_that_runs_in_its_process(
    mode: RunMode, launcher: str, ending: type[BaseException]
) -> None:
    hydra: Any = OmegaConf.create({"mode": mode, "sweeper": {}, "launcher": {"_target_": launcher}})
    with pytest.raises(ending) as caught, as_exception_of_a_job(hydra):
        raise Interrupted(signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM  # type: ignore[attr-defined]


def test_a_job_that_a_queue_has_put_back_leaves_no_outcome() -> None:
    with pytest.raises(SystemExit) as ending, as_exception_of_a_job(MULTIRUN):  # type: ignore[arg-type]
        raise SystemExit(-1)
    assert ending.value.code == -1


def test_a_job_stopped_in_another_process_is_not_a_failed_one(job: Job) -> None:
    def launch(batch: Any, first: int) -> list[JobReturn]:
        stopped = JobReturn(overrides=batch[0])
        stopped.status = JobStatus.FAILED
        stopped.return_value = pickle.loads(pickle.dumps(Stopped(signal.SIGTERM)))
        return [stopped]

    launch_elsewhere(launch, [job])
    assert (job.state, job.stopped_by) == (State.STOPPED, signal.SIGTERM)
    assert not (job.folder / "failed.json").exists()


def test_a_signal_to_a_job_in_this_process_stops_the_others_too(job: Job, tmp_path: Path) -> None:
    done = Job(["a=1"], "a=1", tmp_path / "rejected", folder=tmp_path / "done")

    def launch(batch: Any, first: int) -> list[JobReturn]:
        done.folder.mkdir()
        (done.folder / "result.json").write_text("{}")
        raise Interrupted(signal.SIGHUP)

    with pytest.raises(Interrupted):
        launch_elsewhere(launch, [done, job])
    assert [done.state, job.state] == [State.FINISHED, State.STOPPED]


def test_another_launcher_s_failures_are_its_jobs_own(job: Job, tmp_path: Path) -> None:
    mistaken, good = (Job(["a=1"], "a=1", tmp_path / "rejected", folder=tmp_path / name) for name in ("bad", "good"))

    def launch(batch: Any, first: int) -> list[JobReturn]:
        failed, refused, done = (JobReturn(overrides=overrides) for overrides in batch)
        failed.status, refused.status, done.status = JobStatus.FAILED, JobStatus.FAILED, JobStatus.COMPLETED
        failed.return_value, refused.return_value, done.return_value = OSError("disk full"), UserError("no file"), None
        return [failed, refused, done]

    launch_elsewhere(launch, [job, mistaken, good])
    assert (job.state, job.message, job.is_mistake) == (State.FAILED, "OSError: disk full", False)
    assert (mistaken.state, mistaken.message, mistaken.is_mistake) == (State.FAILED, "no file", True)
    assert (job.folder / "failed.json").is_file()
    assert good.state is State.FINISHED


def test_a_queue_that_gives_up_loses_no_result(job: Job, store_result: Callable[..., None], tmp_path: Path) -> None:
    done = Job(["a=1"], "a=1", tmp_path / "rejected", folder=tmp_path / "done")
    store_result(done)

    def launch(batch: Any, first: int) -> list[JobReturn]:
        raise RuntimeError("job 17 has left no output\ndetails")

    launch_elsewhere(launch, [job, done])
    assert (job.state, job.message) == (State.FAILED, "no result: job 17 has left no output")
    assert done.state is State.FINISHED
