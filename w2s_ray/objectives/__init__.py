"""What a student minimises: losses against soft labels, confidence regularisation, label noise.

Pure functions of tensors and arrays; nothing here reads a file or knows of a model. ``names`` is
data and imports no torch, so a spec can be checked and a plan printed in a process that never
loads it: import the rooms you need (``from w2s_ray.objectives import divergence``).
"""
