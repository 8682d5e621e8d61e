"""Backbones with a scalar or K-class head: loading, reading out, choosing what is trained.

Knows nothing of rows, stores or steps; the loop that trains is in `training`.
"""
