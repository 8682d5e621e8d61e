"""The graph of steps: kinds, keys, what is ready, what is fused, rough cost. No torch, no Ray."""
