"""The graph of steps: keys, cells, what is ready, and rough cost. No torch, no ray."""
