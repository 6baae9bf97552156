"""Decoding of benchmark prompts: greedy decoding with verified drafts, or engines of other libraries."""
