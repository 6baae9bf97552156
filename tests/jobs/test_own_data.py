"""A user's own rows: every kind and format trains and scores, with their own prompt and their own judge."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pandas
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.data.prompt_batches import collate_prompts
from neuroada.decoding.answer_ends import answer_ends
from neuroada.decoding.answers import Answers
from neuroada.decoding.generator import Generator
from neuroada.decoding.settings import Decoding
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.jobs.generate import generate
from neuroada.jobs.merge import merge
from neuroada.runs.predictions import read_predictions
from neuroada.tasks.protocol import Example
from neuroada.tasks.protocols import MATH

from ..tiny_runs import Start, compose_run

MakeRun = Callable[..., RunConfig]

SUMS = [{"question": f"How many are {n} and {n}?", "answer": str(2 * n)} for n in range(8)]
CHATS = [
    {"messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]}
    for row in SUMS
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def chat_lines(folder: Path) -> str:
    (folder / "chat.jinja").write_text(TEMPLATE)
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHATS))
    return str(folder / "mine.jsonl")


def csv_of_questions(folder: Path) -> str:
    pandas.DataFrame(SUMS).to_csv(folder / "mine.csv", index=False)
    return str(folder / "mine.csv")


def parquet_of_completions(folder: Path) -> str:
    rows = pandas.DataFrame(
        {"prompt": [row["question"] for row in SUMS], "completion": [row["answer"] for row in SUMS]}
    )
    rows.to_parquet(folder / "mine.parquet")
    return str(folder / "mine.parquet")


def saved_data_set(folder: Path) -> str:
    splits = {"train": datasets.Dataset.from_list(SUMS), "test": datasets.Dataset.from_list(SUMS[:3])}
    datasets.DatasetDict(splits).save_to_disk(folder / "mine")
    return str(folder / "mine")


FORMS = {
    "chat": (chat_lines, ["data.chat_template={folder}/chat.jinja"], "[user]How many are 0 and 0?</s>[assistant]"),
    "csv": (csv_of_questions, [], "Question: How many are 0 and 0?\nAnswer:"),
    "parquet": (parquet_of_completions, [], "How many are 0 and 0?"),
    "saved data set": (saved_data_set, [], "Question: How many are 0 and 0?\nAnswer:"),
}


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("form", FORMS)
def test_it_trains_and_scores(make_run: MakeRun, tmp_path: Path, form: str) -> None:
    write, settings, prompt = FORMS[form]
    path = write(tmp_path)
    own = [f"task.train=[{path}]", f"task.benchmarks=[{path}]", *(item.format(folder=tmp_path) for item in settings)]
    finetune(make_run(*own, "trainer.max_epochs=1"), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["timings"]["optimizer_steps"] == 2
    rows = read_predictions(tmp_path / "run" / "predictions" / "mine.jsonl")
    assert len(rows) == (3 if form == "saved data set" else 8)
    assert rows[0]["prompt"].removeprefix("<s>") == prompt
    assert rows[2]["answer"] == "4"
    prompts = json.loads((tmp_path / "run" / "adapter" / "prompts.json").read_text())
    assert set(prompts) == {"mine"}


@pytest.mark.slow
def test_the_prompt_travels_with_the_adapter(make_run: MakeRun, overrides: list[str], tmp_path: Path) -> None:
    own = [
        "task.train=[{0}]",
        "task.benchmarks=[{0}]",
        "protocol.prompt='Q: {{{{ question }}}} A:'",
        "protocol.judge=exact",
    ]
    path = csv_of_questions(tmp_path)
    finetune(make_run(*(item.format(path) for item in own), "trainer.max_epochs=1"), tmp_path / "run")
    without_task = [item for item in overrides if not item.startswith("task.")]
    evaluate(compose_run([*without_task, "job=evaluate", f"adapter={tmp_path / 'run'}"]), tmp_path / "again")
    assert (tmp_path / "again" / "metrics.json").read_text() == (tmp_path / "run" / "metrics.json").read_text()
    merge(compose_run([*without_task, "job=merge", f"adapter={tmp_path / 'run'}"]), tmp_path / "merge")
    for folder in (tmp_path / "run" / "adapter", tmp_path / "merge" / "merged"):
        assert json.loads((folder / "prompts.json").read_text())["mine"]["prompt"] == "Q: {{ question }} A:"


def test_base_and_adapter_answer_side_by_side(make_run: MakeRun, overrides: list[str], tmp_path: Path) -> None:
    path = csv_of_questions(tmp_path)
    finetune(
        make_run(f"task.train=[{path}]", f"task.benchmarks=[{path}]", "budget.top_k=50", "optimizer.lr=0.3"),
        tmp_path / "run",
    )
    asked = [
        *(item for item in overrides if not item.startswith("task.")),
        "job=generate",
        f"adapter={tmp_path / 'run'}",
    ]
    generate(compose_run([*asked, "generate.prompt=How many?"]), tmp_path / "one")
    (row,) = map(json.loads, (tmp_path / "one" / "generations.jsonl").read_text().splitlines())
    assert row["prompt"] == "Question: How many?\nAnswer:"
    generate(compose_run([*asked, f"generate.file={path}"]), tmp_path / "all")
    rows = list(map(json.loads, (tmp_path / "all" / "generations.jsonl").read_text().splitlines()))
    assert [row["index"] for row in rows] == list(range(8))
    scored = read_predictions(tmp_path / "run" / "predictions" / "mine.jsonl")
    assert [row["adapted"] for row in rows] == [row["generation"] for row in scored]
    assert [row["base"] for row in rows] != [row["adapted"] for row in rows]


def test_a_question_needs_no_data_file(make_run: MakeRun, overrides: list[str], tmp_path: Path) -> None:
    path = csv_of_questions(tmp_path)
    own = [f"task.train=[{path}]", f"task.benchmarks=[{path}]", "trainer.max_epochs=1"]
    finetune(make_run(*own, "protocol.prompt='Q: {{ question }}'"), tmp_path / "run")
    Path(path).unlink()
    without_task = [item for item in overrides if not item.startswith("task.")]
    asked = [*without_task, "job=generate", f"adapter={tmp_path / 'run'}", "generate.prompt=Why?"]
    generate(compose_run(asked), tmp_path / "asked")
    assert json.loads((tmp_path / "asked" / "generations.jsonl").read_text())["prompt"] == "Q: Why?"


def test_a_prompt_of_more_than_a_question_is_filled_from_a_file(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [f"task.train=[{csv_of_questions(tmp_path)}]", "protocol.prompt='{{ context }} {{ question }}'"]
    run = make_run("job=generate", "generate.prompt=Why?", *own)
    monkeypatch.setattr("neuroada.jobs.side_by_side.loading.load_model", None)  # no weights are read
    problem = r"a question alone does not fill the prompt \(prompt: there is no column 'context' .*\)"
    with pytest.raises(UserError, match=rf"^generate\.prompt: {problem}; give rows with generate\.file=<file>$"):
        generate(run, tmp_path / "asked")


def test_choices_after_nothing_are_refused_before_weights_are_read(
    make_run: MakeRun, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(backbone, tmp_path / "without_bos"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    (tmp_path / "mine.jsonl").write_text(json.dumps({"question": "How many?", "answer": "1"}) + "\n")
    own = [f"evaluation.benchmarks=[{tmp_path}/mine.jsonl]", "protocol.prompt=''", "protocol.choices=['1','2']"]
    run = make_run("job=evaluate", *own, "protocol.judge=log_likelihood", f"model.name_or_path={folder}")
    monkeypatch.setattr("neuroada.jobs.preparation.loading.load_model", None)
    with pytest.raises(UserError, match="mine: row 1: the prompt is empty and the tokenizer puts no token before it"):
        evaluate(run, tmp_path / "scored")


@pytest.mark.slow
def test_own_template_and_metric_come_from_a_folder_of_one_s_own(start: Start, tiny: list[str], tmp_path: Path) -> None:
    csv_of_questions(tmp_path)
    (tmp_path / "packages" / "mine").mkdir(parents=True)
    (tmp_path / "packages" / "mine" / "judge.py").write_text(
        "def has_length(generation, answer, most):\n    return len(generation) <= most\n"
    )
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "protocol").mkdir()
    (tmp_path / "conf" / "task" / "sums.yaml").write_text(
        "name: sums\ntrain: [mine.csv]\nbenchmarks: [{path: mine.csv, protocol: short}]\n"
    )
    (tmp_path / "conf" / "protocol" / "short.yaml").write_text(
        'prompt: "{{ question }} ="\ncompletion: " {{ answer }}"\nmax_new_tokens: 3\n'
        "judge: {_target_: mine.judge.has_length, most: 1000}\n"
    )
    own = [item for item in tiny if not item.startswith(("task.", "evaluation.max_new_tokens"))]
    environment = {"PYTHONPATH": str(tmp_path / "packages")}
    command = ["--config-dir", "conf", "task=sums", *own]
    done = start(*command, "hydra.run.dir=run", environment=environment)
    assert done.returncode == 0, done.stderr
    rows = read_predictions(tmp_path / "run" / "predictions" / "mine.jsonl")
    assert all(row["correct"] for row in rows)
    assert rows[0]["prompt"] == "How many are 0 and 0? ="

    # A received run never names code that is run.
    again = start("job=evaluate", "adapter=run", "hydra.run.dir=again", *own[:2], environment=environment)
    assert again.returncode == 2
    assert "task.benchmarks[0].protocol=short: no such protocol" in again.stderr
    told = start(*command, "job=evaluate", "adapter=run", "hydra.run.dir=again", environment=environment)
    assert told.returncode == 0, told.stderr


def test_every_end_token_of_the_model_s_files_ends_an_answer(make_run: MakeRun, backbone: Path, tmp_path: Path) -> None:
    """The model's generation_config names another end token than its tokenizer: both end an answer."""
    folder = tmp_path / "two_ends"
    folder.mkdir()
    for file in backbone.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer: Any = AutoTokenizer.from_pretrained(backbone)
    model: Any = AutoModelForCausalLM.from_pretrained(backbone)
    prompt = tokenizer(MATH.prompt(Example(0, "How many?", "", "")), return_tensors="pt").input_ids
    written = model.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=1)[0, prompt.shape[1] :].tolist()
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": [1, written[2]]}))
    run = make_run(f"model.name_or_path={folder}")
    ends = answer_ends(run.model, tokenizer)
    assert ends == [1, written[2]]
    items: Any = SimpleNamespace(protocol=MATH, longest_prompt=prompt.shape[1])
    generator = Generator(model, Decoding.make(tokenizer, [items], run.evaluation, ends))
    (new,) = generator(collate_prompts([(0, prompt[0].tolist())]), 0)
    cut = written[: written.index(written[2]) + 1]
    assert new == cut
    assert Answers(tokenizer, ends).texts([new]) == [tokenizer.decode(cut[:-1])]


@pytest.mark.parametrize("decoding", ["verified", "plain"])
def test_a_stop_text_ends_an_answer(make_run: MakeRun, tmp_path: Path, decoding: str) -> None:
    asked = ("job=evaluate", "evaluation.benchmarks=[AddSub]", f"evaluation.decoding={decoding}")
    evaluate(make_run(*asked), tmp_path / "plain")
    texts = [row["generation"] for row in read_predictions(tmp_path / "plain" / "predictions" / "AddSub.jsonl")]
    stop = next(character for character in texts[0][1:] if character.isascii() and character.isalnum())
    evaluate(make_run(*asked, f'protocol.stop=["{stop}"]'), tmp_path / "cut")
    cut = [row["generation"] for row in read_predictions(tmp_path / "cut" / "predictions" / "AddSub.jsonl")]
    assert cut == [text.partition(stop)[0] for text in texts]
    assert cut != texts


def short_alpaca(folder: Path) -> str:
    """Instructions without the column 'input', which only the user's own prompt does without."""
    rows = [{"instruction": row["question"], "output": row["answer"], "answer": row["answer"]} for row in SUMS]
    return json_lines(folder, rows)


def unknown_columns(folder: Path) -> str:
    return json_lines(folder, [{"a": row["question"], "b": row["answer"], "answer": row["answer"]} for row in SUMS])


def json_lines(folder: Path, rows: list[dict[str, str]]) -> str:
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "own.jsonl")


PROMPTED = {
    "no input": (short_alpaca, ["protocol.prompt='### Question: {{ instruction }}'"]),
    "no known kind": (unknown_columns, ["protocol.prompt='{{ a }}'", "protocol.completion='{{ b }}'"]),
}


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("rows", PROMPTED)
def test_rows_that_need_the_user_s_prompt_are_known_again_when_the_run_is_scored(
    make_run: MakeRun, overrides: list[str], tmp_path: Path, rows: str
) -> None:
    write, prompt = PROMPTED[rows]
    own = [f"task.train=[{write(tmp_path)}]", f"task.benchmarks=[{write(tmp_path)}]", "protocol.judge=exact", *prompt]
    finetune(make_run(*own, "trainer.max_epochs=1"), tmp_path / "run")
    without_task = [item for item in overrides if not item.startswith("task.")]
    evaluate(compose_run([*without_task, "job=evaluate", f"adapter={tmp_path / 'run'}"]), tmp_path / "again")
    evaluate(compose_run([*overrides, *own, "job=evaluate"]), tmp_path / "base")
    for place in ("run", "again", "base"):
        score = json.loads((tmp_path / place / "metrics.json").read_text())["benchmarks"]["own"]
        assert score["contamination"]["leaked"] == len(SUMS)


def test_training_rows_that_cannot_be_read_are_said_before_anything_is_generated(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unreadable = tmp_path / "odd.jsonl"
    unreadable.write_text('{"a": "1"}\n')
    evaluate(make_run(f"task.train=[{unreadable}]", "job=evaluate"), tmp_path / "base")
    (warning,) = [record.message for record in caplog.records if record.message.startswith("contamination: not known")]
    assert "odd.jsonl: its columns (a) are of no known kind" in warning
    assert "contamination" not in json.loads((tmp_path / "base" / "metrics.json").read_text())["benchmarks"]["boolq"]
