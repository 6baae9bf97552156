"""How benchmark prompts are answered: exactly greedy's tokens from checked drafts, or by engines of other libraries."""
