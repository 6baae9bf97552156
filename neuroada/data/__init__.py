"""Files in, batches out: the catalog of data sets, reading, tokenising, batching, and the Lightning data module."""
