"""The graph of steps: kinds, keys, what is ready, what is fused, and rough cost. No torch, no Ray."""
