"""A recipe to begin from: `hybrid` trains the model of architecture.json. Set tokenizer, data and length of the run."""

from __future__ import annotations

import json

from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.loss import CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
from torchtitan.config import TrainingConfig
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.trainer import Trainer

from . import ARCHITECTURE, model_registry


def hybrid() -> Trainer.Config:
    described = json.loads(ARCHITECTURE.read_text())
    return Trainer.Config(
        loss=CrossEntropyLoss.Config(global_vocab_size=described["vocab_size"]),
        hf_assets_path="./assets/hf/tokenizer",
        model_spec=model_registry(),
        optimizer=default_adamw(lr=3e-4),
        lr_scheduler=LRSchedulersContainer.Config(warmup_steps=200, decay_ratio=0.2, decay_type="linear"),
        training=TrainingConfig(local_batch_size=1, seq_len=described["context"], steps=1000),
        dataloader=HuggingFaceTextDataLoader.Config(dataset="c4"),
        metrics=MetricsProcessor.Config(log_freq=10),
        checkpoint=CheckpointManager.Config(interval=500),
    )
