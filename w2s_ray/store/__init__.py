"""Everything that outlives a process: artifacts, claims, provenance and the tables built from them.

The store knows nothing of torch or ray. A step's output is there complete or it is not there; the
tables in `results/` and `predictions/` hold nothing that cannot be rebuilt from the artifacts.
"""
