"""What people read of finished runs: the summary of one, the table of many."""
