"""GPU types, memory and time of training on them, and the choice of a layout that fits.

Knows models by their dimensions only, and nothing of steps or studies.
"""
