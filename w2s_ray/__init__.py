"""w2s_ray: scaling studies of weak-to-strong generalization, distributed with Ray."""

__version__ = "0.1.0"
