"""From files to batches: the catalog of data sets, reading, tokenising, batching, and the Lightning data module."""
