"""The device that a run would use on this machine."""


def run_device(accelerator: str) -> str:
    """``cpu``, or the name of the first GPU; for an accelerator that this machine lacks, its configured name.

    Args:
        accelerator: ``trainer.accelerator``; ``auto`` is the GPU if there is one.
    """
    if accelerator == "cpu":
        return accelerator
    import torch  # takes seconds, and the name of a run on a CPU needs none of it

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu" if accelerator == "auto" else accelerator
