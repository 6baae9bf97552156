"""What people read of finished runs: the summary of one run, the comparison of many."""
