"""One run on many devices: launching ranks, what a rank does, and sharding."""
