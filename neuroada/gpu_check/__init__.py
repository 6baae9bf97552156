"""``job=gpu_check``: whether a GPU computes the same as a CPU, and how fast; in parts, one file for all."""
