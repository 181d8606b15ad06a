"""Proxies by name: a scale and a budget that go together, at three sizes.

All are one training on text alone, at 13 to 16 layers of width 128: as deep as the paper's models of 1B, so that places
in the depth mean the same. They differ in tokens alone. How far each agrees with losses at 1B, and what it costs, is in
studies/2026-11_paper_prose, on tokens of a byte-pair encoding, which a file asks for with `data: {path: text/, bpe:
4096}`.
"""

from __future__ import annotations

from dataclasses import replace

from hybrid_nas.budget import Budget
from hybrid_nas.scale import PROXY, Scale

_SCALE = PROXY.with_changes(
    name="proxy-128",
    params=3_840_000,
    width=128,
    ffn_hidden=512,
    head_dim=32,
    ssm_head_dim=16,
    parallel_heads=2,
    context=1024,
)
_BUDGET = Budget(
    tokens=36_000_000,
    batch=8,
    learning_rate=1.5e-3,
    warmup=0.1,
    cooldown=0.25,
    rungs=(0.125, 0.25, 0.5, 0.75),
    validation_tokens=262_144,
    recall_share=0,
    probes=("ar_hits",),
)
PROXIES: dict[str, tuple[Scale, Budget]] = {
    "quick": (_SCALE, replace(_BUDGET, tokens=9_000_000)),
    "standard": (_SCALE, replace(_BUDGET, tokens=18_000_000)),
    "thorough": (_SCALE, _BUDGET),
}
