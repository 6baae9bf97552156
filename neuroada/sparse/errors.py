"""The exception of this package: a one-line message about a mistake that the caller can fix."""


class AdapterError(ValueError):
    """A configuration, model or adapter file that cannot be used; the message says what, where, and how to fix it."""
