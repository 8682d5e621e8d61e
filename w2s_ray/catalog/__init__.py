"""What a model is, told without loading it: architecture, dimensions, digest of its weights."""
