"""Everything that outlives a process: artifacts, claims, provenance, and the tables made from them.

The store does not depend on torch or Ray. A step's output is complete or absent; the tables in
``results/`` and ``predictions/`` hold nothing that cannot be rebuilt from the artifacts.
"""
