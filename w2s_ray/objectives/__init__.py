"""What a student minimises: losses against soft labels, confidence regularisation, label noise.

Pure functions of tensors and arrays: nothing here reads a file or loads a model. ``names`` is plain
data and imports no torch, so a spec can be validated and a plan printed without loading it. Import
the module you need (``from w2s_ray.objectives import divergence``).
"""
