"""The other side of the row on DPO: TRL's ``DPOTrainer``, stopped between rounds.

As ``side_trl``. It receives prompts and answers as tokens, in the order of our side, so that both
train on the same; its own preparation only makes such tokens of texts. The log-probabilities of the
initial model are computed before the first round, as ours are.
"""

import tempfile
import warnings
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer

from benchmarks.rounds import Rounds
from benchmarks.side_trl import Pause
from benchmarks.sides import settings


class OnTokens(DPOTrainer):
    """Takes ``prompt_ids``, ``chosen_ids`` and ``rejected_ids`` as they are."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def main() -> None:
    """Train for as long as there are requests."""
    given = settings()
    torch.set_num_threads(given["threads"])
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    warnings.simplefilter("ignore")
    model = AutoModelForCausalLM.from_pretrained(
        given["model"], dtype=torch.float32, attn_implementation=given["attention"]
    )
    micro_batch = given["micro_batch"]
    rounds = Rounds(given["warmup"])
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            beta=given["beta"],
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=given["batch_size"] // micro_batch,
            train_sampling_strategy="sequential",  # the order in which the pairs are given
            max_length=None,  # they are cut already
            precompute_ref_log_probs=True,
            num_train_epochs=1,
            learning_rate=1e-5,
            lr_scheduler_type="cosine",
            optim="adamw_torch_fused",
            max_grad_norm=0.0,
            activation_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
        )
        trainer = OnTokens(
            model=model,
            args=config,
            train_dataset=Dataset.from_parquet(given["pairs"], cache_dir=folder),
            processing_class=AutoTokenizer.from_pretrained(given["model"]),
            callbacks=[Pause(rounds)],
        )
        trainer.train()


if __name__ == "__main__":
    main()
