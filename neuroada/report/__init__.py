"""Reports on finished runs: the summary of one run, the comparison of many."""
