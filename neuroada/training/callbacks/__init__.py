"""Callbacks: scores, held-out loss and accuracy, forgetting, cost, and progress."""
