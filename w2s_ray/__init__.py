"""w2s_ray: scaling studies of weak-to-strong generalization, distributed with Ray.

Letters that stand for sizes, in the shapes of docstrings and as suffixes of names (``logits_BK``
has shape (B, K)):

    B   rows of a batch
    C   cells (students) trained together
    H   hidden width of the backbone
    J   heads trained together
    K   classes; 2 for a preference pair
    T   tokens of a packed line
    P   trained parameters
    m   texts per row: 2 answers of a preference pair, 1 text of a classification row
    n   rows of a data set
"""

__version__ = "0.1.0"
