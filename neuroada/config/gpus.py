"""GPUs to plan for by name, on a machine that has none of them."""

MEMORY_GIB = {
    "h200": 139.7,
    "h100": 79.1,
    "a100-80": 79.1,
    "a100-40": 39.4,
    "l40s": 44.4,
    "rtx4090": 23.6,
}
"""Name in ``job.device`` -> memory in GiB as torch reports it, a little less than the name of the card says."""
