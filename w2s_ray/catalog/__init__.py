"""What a model is, without loading it: architecture, dimensions, identity of its weights."""
