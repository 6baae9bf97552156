"""What the data sets of a run are looked up in, with the user's protocols and judges created."""

from dataclasses import asdict

from neuroada.config.schema import RunConfig
from neuroada.data.entries import Sources
from neuroada.runs.protocols import own_judge, protocols_of
from neuroada.tasks.label_protocol import label_protocol


def sources_of(run: RunConfig) -> Sources:
    """The sources of a run.

    Raises:
        UserError: A protocol or judge of the user cannot be created.
    """
    labelled = label_protocol(run.task.objective, run.task.labels, run.task.metrics)
    return Sources.of(run.data.dir, run.data.sets, protocols_of(run.data), asdict(run.protocol), own_judge, labelled)
