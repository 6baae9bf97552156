"""Protocols: prompts, completions, reading answers, and scoring."""
