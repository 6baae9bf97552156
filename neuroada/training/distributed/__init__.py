"""One run on many devices: launching ranks, the process of a rank, and sharding."""
