"""Running steps: checks before anything is spent, claims, commits, records of failures."""
