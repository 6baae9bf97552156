"""Studies: a question, the runs that answer it, their records, and the tables made from the records."""
