"""Part ``column_selection``: the time to choose the columns of a whole backbone."""

import time
from collections.abc import Iterator
from dataclasses import replace

import neuroada
from neuroada.costs.timing import synchronize
from neuroada.costs.workloads import backbone
from neuroada.gpu_check.setting import Row, Setting, row
from neuroada.sparse.attaching import selected_columns


def rows(setting: Setting) -> Iterator[Row]:
    """By magnitude, for each k; the best of the repeats, as the first one also starts the GPU's kernels."""
    run = replace(setting.large, benchmark=setting.timing("model"))
    model = backbone(run, setting.device, setting.large_dtype)
    for top_k in setting.check.top_k:
        config = neuroada.NeuroAdaConfig(top_k=top_k, target_modules=run.model.target_modules)
        times = []
        for _ in range(setting.check.repeats):
            synchronize(setting.device)
            started = time.perf_counter()
            columns = selected_columns(model, config)
            synchronize(setting.device)
            times.append(time.perf_counter() - started)
        said = f"{min(times):.2f} s for {len(columns)} layers, {max(times):.2f} at most"
        yield row(f"{run.model.name}, k={top_k}", said, seconds=min(times), seconds_max=max(times))
