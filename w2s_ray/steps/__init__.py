"""One file a step: a typed configuration and input artifacts in, one artifact out."""
