"""The methods of a study of generated text: what a strong model learns from a weak one, and what
it is compared with.

Facts alone; ``plan.generation`` makes steps of them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Method = Literal[
    "weak_before",
    "weak",
    "untrained",
    "best_of_n",
    "sft_before",
    "weak_sft",
    "weak_sft_published",
    "cong_s",
    "cong",
    "wspo",
    "proxy",
    "ceiling",
]
METHODS: Mapping[str, str] = MappingProxyType(
    {
        "weak_before": "the weak model before alignment",
        "weak": "the aligned weak model, the teacher",
        "untrained": "the strong model as it is",
        "best_of_n": "the strong model as it is: the best of its samples by the checker",
        "sft_before": "the strong model, fine-tuned on samples of the weak model before alignment",
        "weak_sft": "the strong model, fine-tuned on samples of the aligned weak model",
        "weak_sft_published": "as weak_sft with the published baseline's half of the epochs and no "
        "repetition penalty",
        "cong_s": "the strong model, fine-tuned on contrastive samples of the weak model",
        "cong": "cong_s, then DPO: a contrastive sample preferred to its own sample",
        "wspo": "the strong model, trained to the weak model's log-ratios on its samples",
        "proxy": "the strong model as it is, shifted by the weak model's log-ratio at decoding",
        "ceiling": "the strong model aligned by the pairs that aligned the weak model",
    }
)
"""Method → what it is, in the order of tables."""
ALWAYS = ("weak_before", "weak", "ceiling")
"""Every cell's gap is measured against these."""
WITH_ALPHA = ("cong_s", "cong")
"""Methods whose cells differ by α."""
TRAINED = (
    "sft_before",
    "weak_sft",
    "weak_sft_published",
    "cong_s",
    "cong",
    "wspo",
    "ceiling",
)
"""Methods that train the strong model: their cells differ by its learning rates."""
ONE_VOCABULARY = ("wspo", "proxy")
"""Methods that compare the two models token by token."""
