"""One file a job: what `job=` names."""
