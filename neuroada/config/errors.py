"""The one exception that means "the user can fix this": reported as a single line, never as a trace."""


class UserError(ValueError):
    """A mistake in configuration, data or files; the message names the thing, the place and the way out."""
