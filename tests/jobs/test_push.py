"""``job=push``: a folder that others can use, and the hub gets exactly that; an adapter there is read like a folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.hf_api import HfApi
from hydra import initialize_config_dir

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.jobs.push import push
from neuroada.runs.adapter_origin import AdapterOrigin, adapter_directory
from neuroada.runs.predictions import predictions_path, read_predictions
from neuroada.sparse.errors import AdapterError

from ..hub.made_runs import MakeFinished
from ..hub.stand_in_hub import TOKEN, StandInHub
from ..tiny_runs import CONF, MakeRun, Start, compose_run

BASE = "push.base_model=somebody/tiny-llama"
Push = Callable[..., Path]


@pytest.fixture
def do_push(tmp_path: Path, hub: StandInHub) -> Push:
    """Runs the job as the command does; the folder that it pushes."""

    def pushed(adapter: Path | str, *overrides: str) -> Path:
        run = compose_run(["job=push", f"adapter={adapter}", "push.repo=me/mine", *overrides])
        with initialize_config_dir(str(CONF), version_base="1.3"):
            push(run, tmp_path / "push")
        return tmp_path / "push" / "hub"

    return pushed


def test_a_dry_run_writes_the_folder_and_sends_nothing(
    make_finished: MakeFinished, do_push: Push, hub: StandInHub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = do_push(make_finished(), "push.dry_run=true", "push.licence=mit")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "prompts.json"}
    assert hub.requests == []
    assert "nothing is pushed; look at" in capsys.readouterr().out


@pytest.mark.slow
def test_the_hub_gets_what_the_dry_run_shows(
    make_finished: MakeFinished, do_push: Push, hub: StandInHub, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_finished()
    shown = {path.name: path.read_bytes() for path in do_push(run, "push.dry_run=true").iterdir()}
    do_push(run)
    assert hub.repositories["me/mine"].files() == shown
    assert "load it with: adapter=me/mine" in capsys.readouterr().out


def test_nothing_of_the_machine_leaves_it(
    make_run: MakeRun, backbone: Path, tmp_path: Path, do_push: Push, hub: StandInHub
) -> None:
    run = tmp_path / "real"
    finetune(make_run("trainer.max_steps=1", "evaluation.limit=2"), run)
    do_push(run, BASE)
    files = hub.repositories["me/mine"].files()
    sent = hub.sent + b"".join(files.values())  # within a commit, files are coded
    for part in (str(tmp_path), str(backbone), str(Path.home()), str(Path.cwd())):
        assert part.encode() not in sent, part
    assert sent.count(TOKEN.encode()) == sent.count(f"Bearer {TOKEN}".encode())
    rows = (tmp_path / "data" / "boolq" / "test.json").read_text()
    assert json.loads(rows)[0]["instruction"].encode() not in sent
    text = files["README.md"].decode()
    assert "model.name_or_path=somebody/tiny-llama" in text
    assert "task.name=small" in text


def test_the_licence_is_that_of_the_base_on_the_hub(
    make_finished: MakeFinished, do_push: Push, hub: StandInHub
) -> None:
    HfApi().create_repo("somebody/tiny-llama")
    HfApi().upload_file(
        path_or_fileobj=b"---\nlicense: apache-2.0\n---\n", path_in_repo="README.md", repo_id="somebody/tiny-llama"
    )
    card = ModelCard((do_push(make_finished()) / "README.md").read_text())
    assert card.data.license == "apache-2.0"
    assert "apache-2.0: that of the base." in card.text


@pytest.mark.slow
def test_a_score_over_all_of_gsm8k_goes_to_its_leaderboard_and_leaves_with_it(
    make_finished: MakeFinished, do_push: Push, hub: StandInHub
) -> None:
    from neuroada.data.catalog import DATASETS

    known = DATASETS["gsm8k"].remote["test"]
    score = {"n": known.num_rows, "correct": 100, "protocol": 100 / 1319, "strict": 0.07}
    run = make_finished(
        metrics={"benchmarks": {"gsm8k": score}}, content={"data": {"gsm8k/test": known.sha256}, "dtype": "float32"}
    )
    do_push(run)
    assert b"openai/gsm8k" in hub.repositories["me/mine"].files()[".eval_results/neuroada.yaml"]
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "metrics": None}))
    do_push(run)
    assert ".eval_results/neuroada.yaml" not in hub.repositories["me/mine"].files()


@pytest.mark.slow
def test_an_adapter_of_the_hub_is_scored_like_its_run(
    make_run: MakeRun, overrides: list[str], backbone: Path, tmp_path: Path, do_push: Push, hub: StandInHub
) -> None:
    run = tmp_path / "real"
    finetune(make_run("trainer.max_steps=2"), run)
    do_push(run, BASE)
    assert AdapterOrigin.read(Path("me/mine")).facts["budget.top_k"] == 1
    evaluate(compose_run([*overrides, "job=evaluate", "adapter=me/mine"]), tmp_path / "scored")
    for name in ("boolq", "AddSub"):
        answers, own = (read_predictions(predictions_path(place, name)) for place in (tmp_path / "scored", run))
        assert [row["generation"] for row in answers] == [row["generation"] for row in own]
    assert json.loads((tmp_path / "scored" / "result.json").read_text())["config"]["adapter"] == "me/mine"


@pytest.mark.slow
def test_one_run_uses_one_commit(make_finished: MakeFinished, do_push: Push, hub: StandInHub) -> None:
    run = make_finished()
    do_push(run, "push.repo=me/moving")
    first = adapter_directory(Path("me/moving"))
    do_push(run, "push.repo=me/moving", "push.tags=[new]")
    assert adapter_directory(Path("me/moving")) == first


class TestRefused:
    def test_a_base_that_is_a_folder(self, make_finished: MakeFinished, do_push: Push, tmp_path: Path) -> None:
        run = make_finished(base=str(tmp_path))
        with pytest.raises(UserError, match=r"is a folder of one machine; give its name on the hub, push.base_model="):
            do_push(run)

    def test_a_damaged_adapter(self, make_finished: MakeFinished, do_push: Push, hub: StandInHub) -> None:
        run = make_finished(files={})
        (run / "adapter" / "adapter_model.safetensors").write_bytes(b"cut off")
        with pytest.raises(AdapterError, match="is damaged or cut off"):
            do_push(run)
        assert hub.requests == []

    def test_a_wrong_token(
        self, make_finished: MakeFinished, do_push: Push, hub: StandInHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        with pytest.raises(AdapterError, match=r"^me/mine: the token is missing or wrong \(401\)"):
            do_push(make_finished(), "push.licence=mit")

    def test_a_folder_with_other_files(self, make_finished: MakeFinished, do_push: Push, tmp_path: Path) -> None:
        (tmp_path / "push").mkdir()
        (tmp_path / "push" / "thesis.txt").write_text("")
        with pytest.raises(UserError, match=r"holds files that no run wrote, such as thesis.txt"):
            do_push(make_finished())

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("push.repo=null", r"push.repo: has no value; give push.repo=<owner>/<name>"),
            ("push.repo=mine", r"push.repo=mine: give <owner>/<name>, as on the hub"),
            ("push.base_model=/models/x", r"push.base_model=/models/x: give <owner>/<name>"),
            ("push.licence=Apache 2", r"push.licence=Apache 2: give an identifier of the hub, such as apache-2.0"),
            ("push.revision=v2", r"a pull request is made to main; set one"),
        ],
    )
    def test_settings(self, make_finished: MakeFinished, do_push: Push, override: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            do_push(make_finished(), "push.create_pr=true", override)


@pytest.mark.slow
def test_from_the_command_line(tiny: list[str], start: Start, tmp_path: Path, hub: StandInHub) -> None:
    trained = start(*tiny, "evaluation.forgetting=null")
    run = next(tmp_path.glob("outputs/finetune/*/*/*/s*"))
    here = hub.environment(tmp_path / "cache")
    pushing = start("job=push", f"adapter={run}", "push.repo=me/mine", BASE, environment=here)
    assert pushing.returncode == 0, pushing.stderr
    assert f"pushed: {hub.address}/me/mine/commit/" in pushing.stdout
    assert "HTTP Request" not in pushing.stdout + pushing.stderr
    own = [*(item for item in tiny if not item.startswith("trainer")), "evaluation.forgetting=null"]
    scored = start("job=evaluate", "adapter=me/mine", *own, environment=here)
    # But for the last cell: what is known of the training data stays with the run.
    row, scored_row = (
        next(line.split("│")[1:7] for line in done.stdout.splitlines() if line.startswith("│ boolq"))
        for done in (trained, scored)
    )
    assert scored_row == row
    missing = start("job=evaluate", "adapter=me/none", environment=here)
    assert missing.returncode == 2
    assert missing.stderr.splitlines()[-1].startswith("neuroada: me/none: no such folder here, and the hub has no such")
    assert "Traceback" not in missing.stderr


def test_the_check_takes_a_repository(make_run: MakeRun, do_push: Push, make_finished: MakeFinished) -> None:
    do_push(make_finished())
    assert isinstance(compose_run(["job=merge", "adapter=me/mine"]), RunConfig)
