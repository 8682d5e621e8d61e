"""The other side of the training rows: TRL's ``RewardTrainer``, stopped between rounds.

It runs in its own environment, which has TRL and not this project. It receives the pairs as tokens
in the order of our side: TRL accepts tokenised data sets, and would drop a pair with a text over
``max_length`` where we truncate.

Options chosen in its favour after trying them (docs/benchmarks.md): the whole model in bf16 without
autocast and fp32 master weights, no gradient checkpointing (TRL's default is on), no clipping, no
logging, the fused AdamW, eager attention (on a CPU its backward pass beats SDPA's at these
lengths), the fastest micro-batch, and within each batch of 16 pairs of similar length together,
which does not change the batch itself.
"""

import tempfile
import warnings
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from transformers.utils import logging
from trl import RewardConfig, RewardTrainer

from benchmarks.rounds import Rounds
from benchmarks.sides import settings


class Pause(TrainerCallback):
    """Calls ``Rounds`` after every optimizer step."""

    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.rounds.step_done()


def main() -> None:
    """Train for as long as there are requests."""
    given = settings()
    torch.set_num_threads(given["threads"])
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    warnings.simplefilter("ignore")
    model = AutoModelForSequenceClassification.from_pretrained(
        given["model"],
        num_labels=1,
        dtype=getattr(torch, given["dtype"]),
        attn_implementation=given["attention"],
    )
    micro_batch = given["micro_batch"]
    rounds = Rounds(given["warmup"])
    with tempfile.TemporaryDirectory() as folder:
        config = RewardConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=given["autocast"],
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=given["batch_size"] // micro_batch,
            train_sampling_strategy="sequential",  # the order in which the pairs are given
            max_length=given["max_length"],
            num_train_epochs=1,
            learning_rate=1e-5,
            lr_scheduler_type="cosine",
            optim="adamw_torch_fused",
            max_grad_norm=0.0,
            activation_checkpointing=False,
            torch_compile=given["compile"],
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
        )
        trainer = RewardTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_parquet(given["pairs"], cache_dir=folder),
            processing_class=AutoTokenizer.from_pretrained(given["model"]),
            callbacks=[Pause(rounds)],
        )
        rounds.facts = lambda: {"tokens": trainer._total_train_tokens}
        trainer.train()


if __name__ == "__main__":
    main()
