"""The process that runs a study: its options, checks, run, results, and what it explains."""
