"""A Scale: how big a design becomes. The same design is trained at a proxy scale and costed at a target scale.

The presets are the configurations of [arXiv:2510.04800, Table 8]; their parameter budget is that of the paper's own
Transformer of the size, so that every hybrid is compared with it at equal non-embedding parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

VOCAB_LLAMA3 = 128_256


class Refused(ValueError):
    """A design that cannot be built at a scale as asked, and is counted, not silently bent."""


LARGEST = {"params": 10**15, "context": 2**40, "vocab": 2**31}
LARGEST_DIMENSION = 2**20


@dataclass(frozen=True)
class Scale:
    """Dimensions that a design does not decide.

    `params` is the non-embedding parameter budget; depth follows from it. `ffn_hidden` is kept where the depth alone
    comes within `ffn_exact_within` of the budget (a share of it), otherwise the FFN width closes the rest.
    `heads`, `kv_heads`, `head_dim` are the attention's; `d_state` and `ssm_head_dim` are Mamba-2's defaults, and
    `ssm_expand` is d_ssm / width. `parallel_heads` are the attention heads of a parallel hybrid; None: half of `heads`.
    """

    name: str
    params: int
    width: int
    ffn_hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    d_state: int = 128
    ssm_head_dim: int = 128
    ssm_expand: int = 2
    ssm_groups: int = 1
    conv_kernel: int = 4
    rope_theta: float = 500_000.0
    window_rope_theta: float = 10_000.0
    ffn_exact_within: float = 0.0
    parallel_heads: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int | None" and value is None:
                continue
            if field.type in ("int", "int | None") and (
                not isinstance(value, int) or isinstance(value, bool) or value < 1
            ):
                raise ValueError(f"scale {self.name}: {field.name} must be a positive whole number, found {value!r}")
            if isinstance(value, int) and value > (most := LARGEST.get(field.name, LARGEST_DIMENSION)):
                raise ValueError(f"scale {self.name}: {field.name} must be at most {most:,}, found {value:,}")
            if field.type == "float" and not 0 <= value < 1e12:
                raise ValueError(f"scale {self.name}: {field.name} must be 0 or more, found {value!r}")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"scale {self.name}: heads must be a multiple of kv_heads, found {self.heads}, {self.kv_heads}"
            )

    @property
    def d_ssm(self) -> int:
        return self.ssm_expand * self.width

    @property
    def attention_heads_in_parallel(self) -> int:
        return self.parallel_heads or max(1, self.heads // 2)

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def with_changes(self, **changes: Any) -> Scale:
        """A copy with some fields changed; a changed preset is no longer the paper's, and its name says so."""
        if changes and "name" not in changes:
            changes["name"] = self.name if self.name.endswith("*") else f"{self.name}*"
        return replace(self, **changes)


PAPER = {
    scale.name: scale
    for scale in (
        Scale("paper-100m", 96_486_400, 1024, 3072, 16, 4, 64, VOCAB_LLAMA3, 8192, ffn_exact_within=0.05),
        Scale(
            "paper-350m",
            352_366_080,
            1536,
            4096,
            24,
            8,
            64,
            VOCAB_LLAMA3,
            8192,
            ffn_exact_within=0.05,
            parallel_heads=16,
        ),
        Scale("paper-1b", 973_146_112, 2048, 8192, 32, 8, 64, VOCAB_LLAMA3, 8192, ffn_exact_within=0.05),
        Scale(
            "paper-3b",
            2_774_707_200,
            3072,
            8192,
            32,
            8,
            96,
            VOCAB_LLAMA3,
            8192,
            d_state=256,
            ssm_head_dim=192,
            ffn_exact_within=0.05,
        ),
    )
}

PROXY = Scale(
    name="proxy",
    params=700_000,
    width=64,
    ffn_hidden=128,
    heads=4,
    kv_heads=1,
    head_dim=16,
    vocab=256,
    context=64,
    d_state=16,
    ssm_head_dim=32,
    rope_theta=10_000.0,
)

SCALES: dict[str, Scale] = {PROXY.name: PROXY, **PAPER}
