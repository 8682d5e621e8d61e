"""Backbones with a scalar or K-class head: loading, scoring, choosing what is trained, exporting.

Nothing here depends on steps or on the store; the training loop is in ``training``.

Letters of array shapes in this package: n rows of a table, b rows of a batch, m texts of a row, T
tokens of a packed line, H width of the states, d width of an attention head, K classes, C cells
(models of one fused group), P trained parameters of a cell, r rank of an adapter.
"""
