"""Causal attention by blocks of queries, each over the keys that it can see; backward by hand. For the CPU.

At the sizes of a proxy torch's own CPU attention computes both triangles, and its exp is slow at -inf; a window is
only a mask to it. Here a block of queries meets one stretch of keys (and the sinks), so a window costs what it shows,
and query heads that share keys are one taller matrix product. exp2 does not slow down at -inf.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hybrid_nas_kernels.attention.reference import visible

BLOCK = 64
KEPT_WEIGHTS = 1 << 23
"""Softmax weights up to this count (32 MiB in float32) are kept for the backward pass; beyond, they are recomputed."""


def attention_blocked(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, sinks: int = 0) -> Tensor:
    """As `attention`. Computes in float32 at least. Differentiable once."""
    if window is not None and window >= q.shape[1]:
        window, sinks = None, 0
    dtype, work = q.dtype, torch.promote_types(q.dtype, torch.float32)
    q, k, v = (value.to(work) for value in (q, k, v))
    y: Tensor = _Blocked.apply(q, k, v, window, sinks)  # type: ignore[no-untyped-call]
    return y.to(dtype)


Stretch = tuple[int, int, int, int, Tensor]


@lru_cache(maxsize=16)
def _plan(tokens: int, window: int | None, sinks: int, device: torch.device, dtype: torch.dtype) -> list[Stretch]:
    """For each block of queries: its first and last + 1 token, how many sinks stand before its stretch of keys, the
    stretch's first key, and the mask, 0 where seen and -inf elsewhere, over (queries, sinks and stretch)."""
    plan = []
    with torch.inference_mode(False):  # usable in every mode
        for start in range(0, tokens, BLOCK):
            stop = min(start + BLOCK, tokens)
            first = 0 if window is None else max(0, start - window + 1)
            apart = min(sinks, first)  # sinks that the stretch does not hold itself
            if first <= sinks:
                first = apart = 0
            seen = visible(stop, window, sinks, device)[start:]
            seen = torch.cat((seen[:, :apart], seen[:, first:]), dim=1)
            mask = torch.zeros(seen.shape, device=device, dtype=dtype).masked_fill_(~seen, -torch.inf)
            plan.append((start, stop, apart, first, mask))
    return plan


def _stretch(value: Tensor, stop: int, apart: int, first: int) -> Tensor:
    """The sinks and the stretch of keys of one block, (batch * kv_heads, keys, head_dim)."""
    stretch = value[:, first:stop]
    return torch.cat((value[:, :apart], stretch), dim=1) if apart else stretch


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int | None, sinks: int) -> Tensor:
        batch, tokens, heads, head_dim = q.shape
        kv_heads = k.shape[2]
        share, n = heads // kv_heads, batch * kv_heads
        scale = head_dim**-0.5
        plan = _plan(tokens, window, sinks, q.device, q.dtype)
        # Heads that share keys lie together; log2(e) turns the softmax's exp into exp2.
        Q = torch.empty((batch, kv_heads, share, tokens, head_dim), dtype=q.dtype, device=q.device)
        torch.mul(
            q.view(batch, tokens, kv_heads, share, head_dim).permute(0, 2, 3, 1, 4), scale * math.log2(math.e), out=Q
        )
        Q = Q.view(n, share, tokens, head_dim)
        K, V = (value.transpose(1, 2).reshape(n, tokens, value.shape[-1]) for value in (k, v))
        y = q.new_empty(batch, tokens, heads, v.shape[-1])
        by_head = y.view(batch, tokens, kv_heads, share, -1).permute(0, 2, 3, 1, 4)
        kept = sum(mask.numel() for *_, mask in plan) * batch * heads <= KEPT_WEIGHTS
        weights, tops, totals = [], [], []
        for start, stop, apart, first, mask in plan:
            queries = Q[:, :, start:stop].reshape(n, -1, head_dim)
            scores = torch.bmm(queries, _stretch(K, stop, apart, first).transpose(1, 2))
            scores.view(n, share, stop - start, -1).add_(mask)
            top = scores.amax(-1, keepdim=True)
            scores.sub_(top).exp2_()
            total = scores.sum(-1, keepdim=True)
            out = torch.bmm(scores, _stretch(V, stop, apart, first)).div_(total)
            by_head[:, :, :, start:stop] = out.view(batch, kv_heads, share, stop - start, -1)
            weights.append(scores if kept else None)
            tops.append(top)
            totals.append(total)
        ctx.save_for_backward(Q, K, V, y, *weights, *tops, *totals)
        ctx.plan, ctx.scale = plan, scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        Q, K, V, y, *rest = ctx.saved_tensors
        plan, blocks = ctx.plan, len(ctx.plan)
        weights, tops, totals = rest[:blocks], rest[blocks : 2 * blocks], rest[2 * blocks :]
        n, share, tokens, head_dim = Q.shape
        batch, kv_heads = y.shape[0], n // y.shape[0]

        def heads_first(value: Tensor) -> Tensor:
            value = value.reshape(batch, tokens, kv_heads, share, -1).permute(0, 2, 3, 1, 4)
            return value.reshape(n, share, tokens, -1)

        dY, delta = heads_first(dy), heads_first((dy * y).sum(-1, keepdim=True))
        dq = y.new_empty(batch, tokens, kv_heads * share, head_dim)
        by_head = dq.view(batch, tokens, kv_heads, share, head_dim).permute(0, 2, 3, 1, 4)
        dK, dV = torch.zeros_like(K), torch.zeros_like(V)
        for i, (start, stop, apart, first, mask) in enumerate(plan):
            queries = Q[:, :, start:stop].reshape(n, -1, head_dim)
            keys, values = _stretch(K, stop, apart, first), _stretch(V, stop, apart, first)
            p = weights[i]
            if p is None:
                p = torch.bmm(queries, keys.transpose(1, 2))
                p.view(n, share, stop - start, -1).add_(mask)
                p.sub_(tops[i]).exp2_()
            # p is not normalised; the row's gradient is divided by its total instead, a narrower tensor.
            dout = dY[:, :, start:stop].flatten(1, 2) / totals[i]
            share_of_row = delta[:, :, start:stop].reshape(n, -1, 1) / totals[i]
            dvalues = torch.bmm(p.transpose(1, 2), dout)
            dscores = torch.bmm(dout, values.transpose(1, 2)).sub_(share_of_row).mul_(p)
            dqueries = torch.bmm(dscores, keys).mul_(ctx.scale)
            by_head[:, :, :, start:stop] = dqueries.view(batch, kv_heads, share, -1, head_dim)
            dkeys = torch.bmm(dscores.transpose(1, 2), queries)
            for total, part in ((dK, dkeys), (dV, dvalues)):
                total[:, first:stop] += part[:, apart:]
                if apart:
                    total[:, :apart] += part[:, :apart]
        dK.mul_(math.log(2.0))  # the stored queries carry log2(e)
        dk, dv = (value.view(batch, kv_heads, tokens, -1).transpose(1, 2) for value in (dK, dV))
        return dq, dk, dv, None, None
