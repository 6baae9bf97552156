"""The report: one self-contained page, the same in Markdown, and the runs as CSV."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from neuroada.config.schema import RunConfig
from neuroada.jobs.compare import compare
from neuroada.report.palette import dark_rules

StoreSweep = Callable[..., Path]
MakeResult = Callable[..., dict[str, Any]]
VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Text, links and loaded resources of a page; raises on tags that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name in ("href", "xlink:href") and tag in ("a", "link"):
                self.links.append(value or "")
            elif name in ("src", "srcset", "data", "xlink:href", "href", "poster"):
                self.loaded.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def report_on(root: Path, out: Path) -> Page:
    compare(RunConfig(runs=str(root)), out)
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_a_sweep_is_one_page_with_its_figures(store_sweep: StoreSweep, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = report_on(store_sweep(top_ks=[1, 20], seeds=[1, 2]), tmp_path / "out")
    kinds = ["accuracy_over_k", "benchmarks", "cost", "held_out_loss_over_k", "training_loss"]
    names = [f"{kind}-made_up_model-commonsense" for kind in kinds]
    figures = tmp_path / "out" / "figures"
    assert sorted(path.name for path in figures.iterdir()) == sorted(f"{n}.{e}" for n in names for e in ("svg", "png"))
    assert page.tags.count("svg") == len(kinds)
    assert "script" not in page.tags
    assert all(reference.startswith("#") for reference in page.links + page.loaded)
    markdown = (tmp_path / "out" / "report.md").read_text()
    for path in re.findall(r"!\[.*?\]\((.*?)\)", markdown):
        assert (tmp_path / "out" / path).is_file()
    assert "bars are 95 % intervals, faint dots single seeds; dashed: the base model." in markdown
    assert "Items: boolq 1000, piqa 1000, ARC-Easy 1000; loss on completion; bfloat16 on cuda:0." in markdown


def test_methods_are_one_page_with_their_figures(store_methods: StoreSweep, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = report_on(store_methods(seeds=[1, 2]), tmp_path / "out")
    figures = tmp_path / "out" / "figures"
    kinds = ["benchmarks", "cost", "methods"]
    assert sorted(path.stem for path in figures.glob("*.svg")) == [f"{k}-made_up_model-commonsense" for k in kinds]
    assert page.tags.count("svg") == len(kinds)
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "bars are 95 % intervals" in markdown
    conditions = "micro-batches of 8; peak GiB: resident set of the process; forgetting: on bundled, 4,096 tokens"
    assert conditions in markdown


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_one_method_alone_is_not_compared(store_methods: StoreSweep, tmp_path: Path, seeds: list[int]) -> None:
    pytest.importorskip("matplotlib")
    report_on(store_methods(methods={"lora": "lora-r8"}, seeds=seeds), tmp_path / "out")
    assert not list((tmp_path / "out" / "figures").glob("methods*"))


@pytest.mark.slow
def test_every_method_is_named_whole_in_the_figures(store_methods: StoreSweep, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    methods = {"lora": "lora-r8", "long": "a-method-with-a-long-name-of-fifty-two-letters-r8-a16"}
    report_on(store_methods(methods=methods, seeds=[1]), tmp_path / "out")
    for path in (tmp_path / "out" / "figures").glob("*.svg"):
        text = path.read_text()
        assert "…" not in text
        assert "lora-r8" in text
        shown = "".join(re.findall(r"<!-- (.*?) -->", text))
        assert methods["long"] in shown, "in several lines"


@pytest.mark.slow
def test_figures_are_the_same_every_time(store_sweep: StoreSweep, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    root = store_sweep(top_ks=[1, 20], seeds=[1])
    report_on(root, tmp_path / "one")
    report_on(root, tmp_path / "two")
    for path in (tmp_path / "one" / "figures").glob("*.svg"):
        assert path.read_bytes() == (tmp_path / "two" / "figures" / path.name).read_bytes()


@pytest.mark.slow
def test_names_are_escaped(made_up: MakeResult, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    evil = "<script>$x$|&\"'"
    for top_k in (1, 2):
        folder = tmp_path / "outputs" / str(top_k)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(made_up(evil, evil, top_k, 1, {evil: 50.0})))
    failed = tmp_path / "outputs" / "failed"
    failed.mkdir()
    (failed / "failed.json").write_text(json.dumps({"state": "failed", "message": evil}))
    page = report_on(tmp_path / "outputs", tmp_path / "out")
    assert "script" not in page.tags
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "<script>" not in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("| failed |")]
    assert tables == ["| failed | failed | &lt;script&gt;$x$\\|&amp;&#34;&#39; |"]


@pytest.mark.usefixtures("without_matplotlib")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[free](https://evil.example)", r"\[free\](https://evil.example)"),
        ("![](https://evil.example/seen.png)", r"!\[\](https://evil.example/seen.png)"),
        ("`code` *bold* _slanted_ ~~gone~~", r"\`code\` \*bold\* \_slanted\_ \~\~gone\~\~"),
        ("\\[a](b)", r"\\\[a\](b)"),
        ("a\n\n# b", "a # b"),
        ("llama_7b", "llama_7b"),
    ],
)
def test_names_mean_nothing_in_markdown(made_up: MakeResult, tmp_path: Path, name: str, shown: str) -> None:
    (tmp_path / "outputs" / "one").mkdir(parents=True)
    (tmp_path / "outputs" / "one" / "result.json").write_text(json.dumps(made_up(name, name, 1, 1, {"boolq": 50.0})))
    failed = tmp_path / "outputs" / "failed"
    failed.mkdir()
    (failed / "failed.json").write_text(json.dumps({"state": "failed", "message": name}))
    report_on(tmp_path / "outputs", tmp_path / "out")
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    assert f"## {shown} on {shown}" in lines
    assert f"| failed | failed | {shown} |" in lines


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_there_are_no_figures_and_one_line_says_so(
    store_sweep: StoreSweep, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = report_on(store_sweep(top_ks=[1], seeds=[1]), tmp_path / "out")
    assert "svg" not in page.tags
    assert "table" in page.tags
    assert "pip install 'neuroada[plots]'" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("without_matplotlib")
def test_csv_has_a_row_for_every_run(store_sweep: StoreSweep, tmp_path: Path) -> None:
    root = store_sweep(top_ks=[2], seeds=[1], benchmarks=["piqa", "boolq"])
    store_sweep(top_ks=[], model="other", task="math", benchmarks=["AddSub"])
    (root / "broken").mkdir()
    (root / "broken" / "failed.json").write_text(json.dumps({"state": "failed", "message": "exit code 1"}))
    report_on(root, tmp_path / "out")
    rows = {row["folder"]: row for row in csv.DictReader((tmp_path / "out" / "runs.csv").open())}
    assert len(rows) == 4
    assert rows["finetune/made_up_model/commonsense/neuroada-k2-0.01/s1"] == {
        "folder": "finetune/made_up_model/commonsense/neuroada-k2-0.01/s1",
        "model": "made_up_model",
        "task": "commonsense",
        "method": "neuroada",
        "label": "neuroada-k2",
        "selection": "magnitude",
        "top_k": "2",
        "percent": "0.1",
        "trainable": "10000",
        "wanted": "",
        "seed": "1",
        "lr": "0.01",
        "boolq": "48.0",
        "piqa": "49.0",
        "AddSub": "",
        "macro": "48.5",
        "micro": "48.5",
        "strict_macro": "24.25",
        "held_out_loss": "1.41",
        "fit_seconds": "62.0",
        "step_ms": "",
        "peak_memory_gib": "1.208",
        "tokens_per_second": "901.0",
        "load_per_processor": "0.55",
        "forgetting": "",
        "status": "finished",
        "error": "",
    }
    base = rows["evaluate/other/math/none-k0-0.01/s1"]
    assert (base["method"], base["top_k"], base["lr"], base["AddSub"], base["boolq"]) == ("base", "", "", "20.0", "")
    broken = rows["broken"]
    assert (broken["status"], broken["error"], broken["model"]) == ("failed", "exit code 1", "")


@pytest.mark.usefixtures("without_matplotlib")
def test_csv_has_what_a_method_recorded(store_methods: StoreSweep, tmp_path: Path) -> None:
    report_on(store_methods(methods={"lora": "lora-r8"}, seeds=[1]), tmp_path / "out")
    [_, row] = csv.DictReader((tmp_path / "out" / "runs.csv").open())
    recorded = {"label": "lora-r8", "top_k": "", "trainable": "24000", "wanted": "24320", "step_ms": "100.5"}
    assert recorded | {"forgetting": "-0.02"} == {name: row[name] for name in [*recorded, "forgetting"]}


@pytest.mark.usefixtures("without_matplotlib")
def test_runs_that_did_not_finish_are_listed_with_their_reason(store_sweep: StoreSweep, tmp_path: Path) -> None:
    root = store_sweep(top_ks=[], seeds=[])
    (root / "stopped").mkdir()
    (root / "stopped" / "config.yaml").write_text("{job: {name: finetune}, method: {name: lora}}")
    report_on(root, tmp_path / "out")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "1 finished, 1 unfinished." in text
        assert "no checkpoint yet" in text


@pytest.mark.usefixtures("without_matplotlib")
def test_published_runs_are_the_only_links_out(store_sweep: StoreSweep, tmp_path: Path) -> None:
    root = store_sweep(model="llama_7b", top_ks=[1, 5], seeds=[1])
    page = report_on(root, tmp_path / "out")
    outside = [link for link in page.links + page.loaded if not link.startswith("#")]
    assert outside == ["https://wandb.ai/z-zhang/NeuroAda/runs/1pkira6e?nw=nwuserzzhang"]
    html = (tmp_path / "out" / "report.html").read_text()
    assert "ours − published" in html
    assert "the columns of k=1 average 80.4" in html


@pytest.mark.usefixtures("without_matplotlib")
def test_results_without_numbers_are_a_report_too(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "result.json").write_text("{}")
    report_on(tmp_path / "outputs", tmp_path / "out")
    assert "unknown model on unknown task" in (tmp_path / "out" / "report.md").read_text()


def column_places(html: str) -> list[list[str]]:
    """The headers of each table."""
    heads = re.findall(r"<thead>(.*?)</thead>", html)
    return [re.findall(r"<th[^>]*>(.*?)</th>", head) for head in heads]


@pytest.mark.usefixtures("without_matplotlib")
def test_a_wide_table_scrolls_and_says_so(store_methods: StoreSweep, tmp_path: Path) -> None:
    report_on(store_methods(seeds=[1]), tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    wide = [names for names in column_places(html) if len(names) > 4]
    regions = re.findall(r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]+">\s*<table>', html)
    assert len(regions) == len(column_places(html)), "the keyboard can scroll each table too"
    cues = re.findall(r'<p class="cue[^"]*" aria-hidden="true">(\d+) columns: scroll sideways →</p>', html)
    assert cues == [str(len(names)) for names in wide]
    assert "@container" in html, "the cue is shown where the table is narrow"
    assert "local" in html, "the shadow at the edge goes away at the end"


@pytest.mark.usefixtures("without_matplotlib")
def test_the_accuracy_is_seen_without_scrolling(store_methods: StoreSweep, tmp_path: Path) -> None:
    """Next to the name, which stays in its place and is wrapped on a phone."""
    report_on(store_methods(seeds=[1]), tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    settings, runs = column_places(html)
    assert settings[:3] == ["setting", "macro", "95 %"]
    assert runs[:4] == ["#", "setting", "macro", "95 %"]
    assert "td:first-child { position: sticky; left: 0;" in html


@pytest.mark.slow
def test_figures_are_at_most_two_to_a_row_and_equally_wide(store_sweep: StoreSweep, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report_on(store_sweep(top_ks=[1, 20], seeds=[1]), tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ".figures { columns: 2 27rem;" in html
    assert "figure svg { display: block; width: 100%;" in html
    opened = re.findall(r"<svg [^>]*>", html)
    assert opened
    assert {"width=" in tag for tag in opened} == {False}
    assert len({tag.split("viewBox")[1].split()[2] for tag in opened}) == 1


@pytest.mark.slow
def test_page_and_files_have_a_dark_variant(store_sweep: StoreSweep, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report_on(store_sweep(top_ks=[1, 20], seeds=[1]), tmp_path / "out")
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "out" / "figures").glob("*.svg")]
    texts.append((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert all(dark_rules() in text for text in texts)


@pytest.mark.slow
def test_macros_over_other_benchmarks_never_share_an_axis(store_sweep: StoreSweep, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    store_sweep(top_ks=[1, 2], seeds=[1], benchmarks=["boolq", "piqa"])
    root = tmp_path / "outputs"
    for path in [*root.glob("finetune/**/s1")]:
        path.parent.rename(path.parent.with_name(f"{path.parent.name}-two"))
    (root / "evaluate").rename(tmp_path / "base_of_two")
    store_sweep(top_ks=[1, 2], seeds=[1], benchmarks=["boolq"])
    report_on(root, tmp_path / "out")
    names = {path.stem for path in (tmp_path / "out" / "figures").glob("accuracy_over_k*.svg")}
    stem = "accuracy_over_k-made_up_model-commonsense"
    assert names == {f"{stem}-boolq_piqa", f"{stem}-boolq"}


@pytest.mark.usefixtures("without_matplotlib")
def test_what_is_not_shown_is_said(store_sweep: StoreSweep, tmp_path: Path) -> None:
    root = store_sweep(top_ks=[1], seeds=[1])
    [run] = root.glob("finetune/**/s1")
    result = json.loads((run / "result.json").read_text())
    del result["timings"]["load_average"]
    (run / "result.json").write_text(json.dumps(result))
    shutil.copytree(run, root / "finetune" / "copy")
    report_on(root, tmp_path / "out")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "Speed: 1 of 1 runs do not record how busy their machine was" in text
        assert "has the same settings, seed and data: finetune/" in text
