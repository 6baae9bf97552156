"""The host's share of a NeuroAda step: what a layer costs beyond a frozen one where there is little to compute.

On a GPU the host only launches kernels; a layer of 256 x 256 with 16 tokens shows on a CPU what that takes. To compare
with another commit, run the script in turn with PYTHONPATH at one checkout and at the other.
"""

import copy
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from torch import nn

import neuroada

LAYERS, WIDTH, TOKENS, STEPS, ROUNDS = 32, 256, 16, 20, 25


def seconds(step: Callable[[], None]) -> float:
    """CPU seconds of one step: other processes on the machine count less than in wall time."""
    start = time.process_time()
    for _ in range(STEPS):
        step()
    return (time.process_time() - start) / STEPS


def main() -> None:
    """Time both models in turn and print the medians."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    frozen = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))).requires_grad_(False)
    adapted = copy.deepcopy(frozen)
    names = [name for name, _ in adapted.named_children()]
    adapter = neuroada.attach(adapted, neuroada.NeuroAdaConfig(top_k=1, target_modules=names))
    inputs = torch.randn(TOKENS, WIDTH, requires_grad=True)

    def floor() -> None:
        frozen(inputs).sum().backward()
        inputs.grad = None

    def step() -> None:
        adapted(inputs).sum().backward()
        inputs.grad = None
        adapter.sync()  # what the hook after an optimizer step does

    pairs = [(seconds(floor), seconds(step)) for _ in range(ROUNDS)]
    of_floor, of_step = (1e6 * statistics.median(times) / LAYERS for times in zip(*pairs, strict=True))
    beyond = 1e6 * statistics.median(step - floor for floor, step in pairs) / LAYERS
    Console().print(f"floor {of_floor:.0f} us a layer, NeuroAda {of_step:.0f}, beyond the floor {beyond:.0f}")


if __name__ == "__main__":
    main()
