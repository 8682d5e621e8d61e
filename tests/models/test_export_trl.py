"""TRL takes an exported model for a reward model, and finds the same rewards."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tests.testing.exports import LENGTH, export, ours, rows_of_test, texts_of, trained
from tests.testing.tiny_models import ARCHITECTURES, tiny
from w2s_ray.data.tokens import encode


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_trl_finds_the_same_rewards(tmp_path: Path, architecture: str, trainable: str) -> None:
    trl = pytest.importorskip("trl")
    backbone = tiny(architecture)
    scorer = trained(backbone, 2, trainable)
    tokens = encode(rows_of_test(2), backbone.tokenizer, LENGTH)
    p = ours(scorer, tokens)[:, 1]
    folder = export(tmp_path / "export", backbone, dict(scorer.named_parameters()))
    texts = texts_of(tokens)
    pairs = Dataset.from_dict({"chosen_ids": texts[::2], "rejected_ids": texts[1::2]})
    trainer = trl.RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32),
        args=trl.RewardConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_eval_batch_size=len(pairs),
            max_length=None,
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
        train_dataset=pairs,
        eval_dataset=pairs,
    )
    batch = trainer.data_collator([pairs[i] for i in range(len(pairs))])
    trainer.model.eval()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    chosen, rejected = outputs.logits.squeeze(-1).double().chunk(2)
    torch.testing.assert_close(torch.sigmoid(chosen - rejected), p, atol=1e-5, rtol=0)
    assert float(loss) == pytest.approx(float(-p.log().mean()), abs=1e-5)
    accuracy = float((p > 0.5).double().mean())
    assert trainer.evaluate()["eval_accuracy"] == pytest.approx(accuracy)
