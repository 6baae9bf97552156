"""What watches a run: scores, held-out loss and accuracy, cost, and progress."""
