"""Tokens of one micro-batch, and of one forward pass without gradients, by kind of device.

Training and inference read the numbers that the planner's memory estimates assume.
"""

# Of one process's micro-batch, where the spec does not say.
MICRO_BATCH_TOKENS = {"cpu": 4_096, "gpu": 16_384}
# What the planner tries, the largest first: no more than the default on a GPU, down to 128.
MICRO_BATCH_CANDIDATES = tuple(MICRO_BATCH_TOKENS["gpu"] >> halving for halving in range(8))
# Of one forward pass without gradients, by torch's name of the device.
DECODED_ROWS = 32  # that generate text together
INFERENCE_TOKENS = {"cpu": 2_048, "cuda": 32_768}
