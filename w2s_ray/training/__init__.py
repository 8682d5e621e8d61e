"""One flat training loop over an engine: plain torch for one process, DeepSpeed for several."""
