"""The exception of this package: a mistake the caller can fix, in one line."""


class AdapterError(ValueError):
    """A configuration, model or adapter file that cannot be used; the message names what, where and the way out."""
