"""The configuration of a run: its typed schema and the checks before anything starts."""
