"""What GPUs hold and how fast they are: memory, layouts that fit, time. Knows of no step."""
