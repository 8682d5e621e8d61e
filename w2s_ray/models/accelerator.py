"""What DeepSpeed is told of this machine before it is imported, by whichever library does so."""

import os


def without_gpu() -> None:
    """Says that there is no GPU: DeepSpeed would look for one, and warn. It asks when imported."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
