"""Sweeps, many runs from one command: planning the jobs, running them, and showing their state."""
