"""The random states of a process as tensors, for a checkpoint.

Training draws no random numbers (dropout is off, orders and noise are functions of seeds and row
ids), so a resumed run would be the same without them. They are saved so that this stays true for an
objective or a model that does draw.
"""

import random

import numpy as np
import torch
from torch import Tensor


def random_states() -> dict[str, Tensor]:
    """The random states of torch, of the current GPU if one is in use, of numpy and of Python."""
    _, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, second_gauss = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(words).astype(np.int64)),
        "numpy.rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
        "python": torch.tensor([version, *internal], dtype=torch.int64),
        "python.rest": torch.tensor(
            [] if second_gauss is None else [second_gauss], dtype=torch.float64
        ),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor]) -> None:
    """Restores what ``random_states`` returned."""
    torch.set_rng_state(states["torch"])
    position, has_gauss, gauss = states["numpy.rest"].tolist()
    words = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, int(position), int(has_gauss), gauss))
    version, *internal = states["python"].tolist()
    random.setstate((version, tuple(internal), next(iter(states["python.rest"].tolist()), None)))
    if "cuda" in states and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.set_rng_state(states["cuda"])
