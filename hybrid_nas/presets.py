"""Proxies by name: a scale and a budget that go together, at three sizes.

All are one training, half on text and half on four synthetic tasks, at 13 to 16 layers of width 64: as deep as the
paper's models of 1B, so that places in the depth mean the same. They differ in tokens alone. How far each agrees with
losses at 1B, and what it costs, is in studies/2026-11_paper_ratio.
"""

from __future__ import annotations

from dataclasses import replace

from hybrid_nas.budget import Budget
from hybrid_nas.scale import PROXY, Scale

_SCALE = PROXY.with_changes(
    name="proxy-13",
    params=975_000,
    ffn_hidden=256,
    ssm_head_dim=16,
    parallel_heads=2,
    context=256,
)
_BUDGET = Budget(
    tokens=12_000_000,
    batch=32,
    learning_rate=3e-3,
    warmup=0.1,
    cooldown=0.25,
    rungs=(0.0625, 0.125, 0.25, 0.5),
    validation_tokens=131_072,
    recall_share=0.5,
    tasks=("mqar(pairs=16)", "induction", "in_context_recall(vocab=64)", "selective_copying"),
)
PROXIES: dict[str, tuple[Scale, Budget]] = {
    "quick": (_SCALE, replace(_BUDGET, tokens=3_000_000)),
    "standard": (_SCALE, replace(_BUDGET, tokens=6_000_000)),
    "thorough": (_SCALE, _BUDGET),
}
