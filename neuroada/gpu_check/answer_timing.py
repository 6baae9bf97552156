"""Part ``answer_timing``: answers of a real model by our engine and by a plain loop."""

from collections.abc import Iterator
from dataclasses import replace

from neuroada.backbones import loading
from neuroada.config.schema import ModelConfig
from neuroada.costs.evaluation_speed import evaluation_rows
from neuroada.gpu_check.setting import Row, Setting, row


def rows(setting: Setting) -> Iterator[Row]:
    """The scope ``evaluation`` of ``job=benchmark`` on the run's benchmarks."""
    check = setting.check
    model = ModelConfig(name="answering", name_or_path=str(check.answering))
    run = replace(
        setting.run,
        adapter=None,
        model=model,
        evaluation=replace(setting.run.evaluation, limit=check.questions),
        benchmark=setting.timing("evaluation", random_weights=False),
    )
    for measured in evaluation_rows(run, setting.device, loading.resolve_dtype("auto", setting.device.type)):
        said = (
            f"{measured['questions_per_s']:.1f} questions/s, {measured['vs_plain']:.2f} x the plain loop, "
            f"{measured['differing']} of {measured['questions']} differ"
        )
        yield measured | row(f"{check.answering}: {measured['method']}", said)


def why_left_out(setting: Setting) -> str | None:
    """The machine has no network: somebody must have brought the model."""
    if setting.check.answering is None:
        return "give the folder of a model, such as SmolLM2-135M: gpu_check.answering=<folder>"
    return None
