"""The jobs that ``job=`` selects, one per file."""
