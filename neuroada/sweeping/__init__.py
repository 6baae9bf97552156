"""Many runs from one command: which jobs a sweep has, where they run, and what becomes of each."""
