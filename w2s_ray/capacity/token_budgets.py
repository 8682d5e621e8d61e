"""Tokens of one micro-batch, and of one forward pass without gradients, by kind of device; rows
that generate text together.

Training and inference read the numbers that the planner's memory estimates assume.
"""

# Of one process's micro-batch, where the spec does not say.
MICRO_BATCH_TOKENS = {"cpu": 4_096, "gpu": 16_384}
# What the planner tries, the largest first: no more than the default on a GPU, down to 128.
MICRO_BATCH_CANDIDATES = tuple(MICRO_BATCH_TOKENS["gpu"] >> halving for halving in range(8))
# Rows that generate text together, and tokens of their caches, where the planner says nothing. A
# token costs a pass over all weights, which more rows share.
DECODED_ROWS = 128
DECODED_TOKENS = 32_768
DECODED_ROWS_CANDIDATES = (256, 128, 64, 32, 16, 8)  # of a GPU, the most first
# Of one forward pass without gradients, by torch's name of the device.
INFERENCE_TOKENS = {"cpu": 2_048, "cuda": 32_768}
