"""Why something failed, in one line for a row. Apart from ``failures``, because this needs no torch."""

_LONGEST = 300
"""Letters: compilers report pages."""


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, after its class."""
    first = (str(error).strip().splitlines() or [""])[0]
    kind = type(error).__name__
    name = "out of memory" if "OutOfMemory" in kind or isinstance(error, MemoryError) else kind
    return f"{name}: {first}"[:_LONGEST].removesuffix(": ")
