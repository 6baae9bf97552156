"""What a run is on disk: its files, its identity and folder, its record, and how earlier runs are read."""
