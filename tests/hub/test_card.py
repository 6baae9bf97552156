"""The card of a run: metadata for the Hub, and a page that says what the run recorded and nothing of its machine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import markdown
import pytest
from huggingface_hub import ModelCard

from neuroada.config.errors import UserError
from neuroada.config.job_schema import PushConfig
from neuroada.hub.card import card
from neuroada.hub.card_facts import CardFacts, run_of
from neuroada.hub.licences import Licence
from neuroada.runs.adapter_origin import AdapterOrigin
from neuroada.runs.listing import Run

from .made_runs import SCORES, MakeFinished

MakeCard = Callable[..., ModelCard]
EVIL = "<script>alert(1)</script> [x](https://evil.example) `code` | $$x$$ <!-- ![i](https://evil.example/i.png)"


@pytest.fixture
def make_card(make_finished: MakeFinished) -> MakeCard:
    """The card of a run; keywords are those of ``make_finished``, or of ``CardFacts``."""

    def made(
        push: PushConfig | None = None, is_bundled: bool = False, overrides: Any = ("task=math",), **changes: Any
    ) -> ModelCard:
        folder = make_finished(**changes)
        origin = AdapterOrigin.read(folder)
        return card(
            CardFacts(
                push=push or PushConfig(repo="me/mine"),
                origin=origin,
                run=run_of(origin.directory),
                base=origin.header["base_model_name_or_path"],
                is_bundled=is_bundled,
                licence=Licence("apache-2.0", "that of the base"),
                overrides=tuple(overrides),
            )
        )

    return made


def page_of(made: ModelCard) -> str:
    return markdown.markdown(made.text, extensions=["tables", "fenced_code"])


class TestMetadata:
    def test_the_hub_lists_it_below_its_base(self, make_card: MakeCard) -> None:
        data = make_card().data.to_dict()
        named = {key: data[key] for key in ("base_model", "base_model_relation", "library_name", "license", "tags")}
        assert named == {
            "base_model": "somebody/tiny-llama",
            "base_model_relation": "adapter",
            "library_name": "neuroada",
            "license": "apache-2.0",
            "tags": ["neuroada"],
        }
        assert data["pipeline_tag"] == "text-generation"

    def test_the_user_adds_tags_languages_and_data_sets(self, make_card: MakeCard) -> None:
        push = PushConfig(repo="me/mine", tags=["math"], language=["en"], datasets=["openai/gsm8k"])
        data = make_card(push).data.to_dict()
        assert (data["tags"], data["language"], data["datasets"]) == (["neuroada", "math"], ["en"], ["openai/gsm8k"])

    def test_the_bundled_model_is_no_base_of_the_hub(self, make_card: MakeCard) -> None:
        made = make_card(base="bundled", is_bundled=True)
        assert not {"base_model", "base_model_relation"} & made.data.to_dict().keys()
        assert "A NeuroAda adapter of the small model that comes with neuroada" in made.text


class TestPage:
    def test_scores_have_intervals_and_the_split_by_contamination(self, make_card: MakeCard) -> None:
        text = make_card().text
        assert "| boolq | 150 | 90.7 | 84.9–94.4 | 90.0 | 90.0 (n 140) | 100.0 (n 10) |" in text
        assert "| AddSub | 50 | 50.0 | 36.6–63.4 | 50.0 | – | – |" in text
        assert "| all items | 200 | 80.5 | 74.0–85.0 |" in text
        assert "also in the training data (10 here)" in text
        assert "2.500 before training, 2.750 after" in text

    def test_it_says_what_was_trained_on_what_and_how(self, make_card: MakeCard) -> None:
        text = make_card(overrides=["task=math", "optimizer.lr=0.5"]).text
        for row in (
            "| k, trained inputs of a neuron | 1 |",
            "| trained | 128 of 100,000 parameters (0.128 %) |",
            "| target layers | q_proj |",
            "| optimizer steps | 11 |",
            "| seed | 42 |",
            f"| boolq | train | `{'ab' * 32}` |",
        ):
            assert row in text
        assert "```bash\nneuroada task=math optimizer.lr=0.5\n```" in text
        assert "neuroada 0.1.0 (1a2b3c4), python 3.11.7, torch 2.13.0" in text

    def test_a_pattern_of_layers_is_shown_as_it_is(self, make_finished: MakeFinished) -> None:
        pattern = r"layers\.(0|1)\..*_proj"
        read = AdapterOrigin.read(make_finished())
        origin = AdapterOrigin(read.directory, {**read.header, "target_modules": pattern})
        facts = CardFacts(PushConfig(repo="me/mine"), origin, Run.finished({}), None, False, Licence("mit", ""))
        assert dict(facts.settings())["target layers"] == pattern
        assert pattern in page_of(card(facts))

    def test_prompts_are_shown_as_templates(self, make_card: MakeCard) -> None:
        text = make_card().text
        assert "```\n{{ instruction }}\n```\n\nit is trained to go on with\n\n```\nso {{ answer }}\n```" in text
        assert "AddSub, as a conversation in the chat template of the base: after" in text

    def test_it_says_how_to_load_it(self, make_card: MakeCard) -> None:
        text = make_card().text
        assert 'model = AutoModelForCausalLM.from_pretrained("somebody/tiny-llama")' in text
        assert 'neuroada.load(model, "me/mine")' in text
        assert "neuroada job=merge adapter=me/mine" in text

    def test_a_classifier_is_loaded_with_its_labels(self, make_finished: MakeFinished, make_card: MakeCard) -> None:
        config = json.loads((make_finished() / "result.json").read_text())["config"]
        task = {**config["task"], "objective": "classification", "labels": ["no", "yes"]}
        made = make_card(config={**config, "task": task})
        assert 'AutoModelForSequenceClassification.from_pretrained("somebody/tiny-llama", num_labels=2)' in made.text
        assert made.data.pipeline_tag == "text-classification"

    def test_without_scores_it_says_so(self, make_card: MakeCard) -> None:
        made = make_card(metrics=None)
        assert "No scores are known." in made.text
        assert "model-index" not in made.data.to_dict()

    def test_its_tables_and_blocks_render(self, make_card: MakeCard) -> None:
        page = page_of(make_card())
        assert page.count("<table>") == 3
        assert page.count("<pre>") == 7
        assert "|" not in page.replace("<code>", "").split("<h2>Use</h2>")[0]


class TestReceivedRun:
    """Whoever wrote the run folder, its texts are shown and nothing else."""

    def test_its_texts_become_no_html_link_or_code(self, make_card: MakeCard) -> None:
        made = make_card(
            metrics={"benchmarks": {EVIL: SCORES["AddSub"]}},
            content={"data": {f"{EVIL}/train": EVIL}, "dtype": EVIL},
            versions={"neuroada": EVIL, "torch": EVIL},
            git={"commit": EVIL},
            device=EVIL,
        )
        page = page_of(made)
        assert "script>" not in page
        assert 'evil.example"' not in page
        assert "<img" not in page
        assert "$$" not in made.text
        assert "https://evil" not in made.text

    def test_a_prompt_cannot_end_its_block(self, make_finished: MakeFinished, make_card: MakeCard) -> None:
        made = make_card()
        assert "````" not in made.text
        from neuroada.report.escaped_markdown import fenced

        assert fenced("```\n# not a heading\n```").startswith("````\n")

    def test_numbers_that_are_none_are_left_out(self, make_card: MakeCard) -> None:
        made = make_card(
            budget=None,
            training_rows=["many"],
            forgetting={"before": 1.0},
            metrics={"benchmarks": {"a": {"n": 0}, "b": {"n": 5, "protocol": None}, "c": SCORES["AddSub"]}},
        )
        assert "| trained | 128 values |" in made.text
        assert "| c | 50 | 50.0 |" in made.text

    def test_a_changed_adapter_is_not_described(self, make_finished: MakeFinished) -> None:
        folder = make_finished()
        header = folder / "adapter" / "adapter_config.json"
        header.write_text(header.read_text().replace('"top_k": 1', '"top_k": 2'))
        with pytest.raises(UserError, match=r"adapter_config.json has changed since result.json was written"):
            run_of(folder / "adapter")

    def test_scores_of_changed_predictions_are_not_published(
        self,
        make_finished: MakeFinished,
        tmp_path: Path,
    ) -> None:
        folder = make_finished()
        result = json.loads((folder / "result.json").read_text())
        result["files"]["metrics.json"] = {"bytes": 2, "sha256": "00"}
        (folder / "result.json").write_text(json.dumps(result))
        run_of(folder / "adapter")  # files that are only missing change no score
        (folder / "metrics.json").write_text("{}")
        with pytest.raises(UserError, match=r"metrics.json has changed .* no score can be published"):
            run_of(folder / "adapter")

    def test_an_interpolation_is_refused(self, make_finished: MakeFinished) -> None:
        folder = make_finished()
        text = (
            (folder / "result.json")
            .read_text()
            .replace('"float32"}', '"float32"}')
            .replace("small", "${oc.env:HF_TOKEN}")
        )
        (folder / "result.json").write_text(text)
        with pytest.raises(UserError, match="interpolation"):
            run_of(folder / "adapter")


def test_an_adapter_folder_alone_has_a_card_too(make_finished: MakeFinished, tmp_path: Path) -> None:
    alone = (make_finished() / "adapter").rename(tmp_path / "alone")
    origin = AdapterOrigin.read(alone)
    licence = Licence("unknown", "nobody")
    facts = CardFacts(PushConfig(repo="me/mine"), origin, run_of(alone), "somebody/base", False, licence)
    text = card(facts).text
    assert "it trains 128 values" in text
    assert "No scores are known." in text
    assert "The command" not in text
