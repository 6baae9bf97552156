"""What a run is: its typed schema, the checks before anything starts, and the folder its values name."""
