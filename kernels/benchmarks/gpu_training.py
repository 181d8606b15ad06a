"""Training speed on one GPU: our captured step against mamba-ssm's MambaLMHeadModel of equal dimensions, in one run.

    python kernels/benchmarks/gpu_training.py [--cases width-128 ...] [--no-peer]
    python kernels/benchmarks/gpu_training.py --profile [--cases width-128 ...]

Both have the same layers and parameter counts (asserted) and see random tokens. The peer trains as its users do: eager,
bfloat16 autocast, torch's fused AdamW. A step is forward, cross-entropy, backward, AdamW; ours clips gradients too.
`first step` is from building the model to its first loss, with whatever is in Triton's cache. Floors: `gpu_cases.py`.
Writes results/gpu_training.json and .md; of some cases, or without the peer, into files of their own (`suffix` of
`gpu_cases.py`: _100m, _small, _width-128, ...). With `--profile` it writes results/gpu_profile.json, or one of its own
for some cases, and times nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from gpu_cases import CASES, Case, RandomTokens, device_rates, environment, floors, need_gpu, suffix, tokens_of
from torch.nn import functional as F

from hybrid_nas.architecture import Attention, Mamba2
from hybrid_nas.captured import CHUNK, CapturedTraining
from hybrid_nas.cost import cost
from hybrid_nas.model import build

RESULTS = Path(__file__).parent / "results"
SECONDS = 3.0
"""How long a measurement may take."""


def start(case: Case, capture: bool = True, compiled: bool = False) -> tuple[CapturedTraining, float]:
    """A training whose first loss has come, and the seconds that it took. `compiled`: the model and its loss, forward
    and backward, are torch.compile's, inside the captured step."""
    begin = time.perf_counter()
    device, architecture = torch.device("cuda"), case.architecture()
    model = build(architecture, generator=0, device=device)
    if compiled:
        model.losses = torch.compile(model.losses, dynamic=False)  # type: ignore[method-assign]
    training = CapturedTraining(model, architecture, RandomTokens(case, 100_000), device, capture=capture)
    training.enqueue(1).read()
    return training, time.perf_counter() - begin


def ours(case: Case, compiled: bool = False) -> dict[str, Any]:
    torch.cuda.reset_peak_memory_stats()
    training, first = start(case, compiled=compiled)
    training.enqueue(4).read()
    begin = time.perf_counter()
    training.enqueue(4).read()
    chunks = max(2, int(SECONDS / (time.perf_counter() - begin) * 4 / CHUNK))
    begin = time.perf_counter()
    ahead = [training.enqueue(CHUNK) for _ in range(2)]
    for _ in range(chunks - 2):
        ahead.pop(0).read()
        ahead.append(training.enqueue(CHUNK))
    losses = [chunk.read() for chunk in ahead][-1]
    step = (time.perf_counter() - begin) / (chunks * CHUNK)
    return {
        "how": training.how,
        "step_s": step,
        "first_step_s": first,
        "loss": losses[-1],
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "implementations": training.model.implementations(),
    }


def peer_model(case: Case) -> Any:
    """mamba-ssm's model with every dimension of ours."""
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    architecture = case.architecture()
    mixers = [block.mixer for block in architecture.blocks]
    attention = next(m for m in mixers if isinstance(m, Attention))
    mamba = next(m for m in mixers if isinstance(m, Mamba2))
    config = MambaConfig(
        d_model=case.width,
        d_intermediate=architecture.blocks[0].ffn.hidden,
        n_layer=case.layers,
        vocab_size=case.vocab,
        ssm_cfg={"layer": "Mamba2", "d_state": mamba.d_state, "headdim": mamba.head_dim, "expand": 2},
        attn_layer_idx=list(case.attention),
        attn_cfg={
            "causal": True,
            "head_dim": attention.head_dim,
            "num_heads": attention.heads,
            "num_heads_kv": attention.kv_heads,
            "qkv_proj_bias": False,
            "out_proj_bias": False,
            "rotary_emb_dim": attention.head_dim,
        },
        tie_embeddings=True,
    )
    model = MambaLMHeadModel(config, device="cuda")
    ours_has = cost(architecture, case.context).params
    has = sum(p.numel() for p in model.parameters())
    assert has == ours_has, f"{has} parameters, ours {ours_has}"
    return model


def peer(case: Case) -> dict[str, Any]:
    torch.cuda.reset_peak_memory_stats()
    tokens = tokens_of(case)
    begin = time.perf_counter()
    model = peer_model(case)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(tokens[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    step().item()
    first = time.perf_counter() - begin
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    step().item()
    count = max(8, int(SECONDS / (time.perf_counter() - begin)))
    begin = time.perf_counter()
    for _ in range(count):
        loss = step()
    value = loss.item()
    return {
        "step_s": (time.perf_counter() - begin) / count,
        "first_step_s": first,
        "loss": value,
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }


def profile(case: Case, top: int = 100) -> list[dict[str, Any]]:
    """Device time of each kernel in one step, the most first; `launches` are of kernels and copies alone."""
    training, _ = start(case, capture=False)
    training.enqueue(2).read()
    steps = 3
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        training.enqueue(steps).read()
    rows = [
        {"kernel": e.key[:70], "launches": e.count / steps, "ms": e.self_device_time_total / 1e3 / steps}
        for e in seen.key_averages()
        if e.self_device_time_total > 0  # calls on the host are rows too
    ]
    rows.sort(key=lambda row: -row["ms"])
    total = {"kernel": "all", "launches": sum(r["launches"] for r in rows), "ms": sum(r["ms"] for r in rows)}
    return [total, *rows[:top]]


def as_markdown(result: dict[str, Any]) -> str:
    env, rates = result["environment"], result["rates"]
    versions = f"{env['device']}, torch {env['torch']}, triton {env['triton']}, {env['date']}, commit {env['commit']}"
    head = ["model", "batch x context", "tokens/s", "steps/s", "ms/step", "floor: FLOPs, bytes (ms)", "first step, s"]
    head += ["GiB", "mamba-ssm tokens/s", "ratio", "its first step, s"]
    lines = [
        f"{versions}; product {rates['matmul_flops'] / 1e12:.0f} TFLOP/s, copy {rates['copy_bytes'] / 1e12:.2f} TB/s",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    for row in result["rows"]:
        case, mine, theirs, floor = row["case"], row["ours"], row.get("peer"), row["floor"]
        tokens = case["batch"] * case["context"]
        line = (
            f"| {case['name']} | {case['batch']} x {case['context']} | {tokens / mine['step_s']:,.0f} "
            f"| {1 / mine['step_s']:,.0f} | {1e3 * mine['step_s']:.2f} "
            f"| {1e3 * floor['arithmetic_s']:.2f}, {1e3 * floor['traffic_s']:.2f} "
            f"| {mine['first_step_s']:.1f} | {mine['peak_bytes'] / 2**30:.1f} "
        )
        if "compiled" in row:
            found = row["compiled"]
            name, found_s = f"{case['name']}, compiled", found["step_s"]
            lines.append(
                f"| {name} | | {tokens / found_s:,.0f} | {1 / found_s:,.0f} | {1e3 * found_s:.2f} | "
                f"| {found['first_step_s']:.1f} | {found['peak_bytes'] / 2**30:.1f} | | | |"
            )
        if theirs is None:
            lines.append(line + "| | | |")
        else:
            lines.append(
                line + f"| {tokens / theirs['step_s']:,.0f} | {theirs['step_s'] / mine['step_s']:.1f} "
                f"| {theirs['first_step_s']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--first-step", action="store_true", help="only say how long the first step takes")
    parser.add_argument("--compile", action="store_true", help="also our step with torch.compile in it")
    parser.add_argument("--profile", action="store_true", help="only the device time of each kernel of our step")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    need_gpu("kernels/benchmarks/cpu_hybrid.py compares training on the CPU")
    os.environ.setdefault("TRITON_CACHE_AUTOTUNING", "1")
    if options.first_step:
        for name in options.cases:
            began = time.perf_counter()
            torch.zeros(1, device="cuda")
            print(f"{name}: CUDA {time.perf_counter() - began:.1f} s, first loss {start(CASES[name])[1]:.1f} s after")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    of = suffix(options.cases, peer=options.profile or not options.no_peer)
    if options.profile:
        rows = [{"case": name, "kernels": profile(CASES[name])} for name in options.cases]
        profiled = {"environment": environment(), "rows": rows}
        (options.out / f"gpu_profile{of}.json").write_text(json.dumps(profiled, indent=2) + "\n")
        return
    result: dict[str, Any] = {"environment": environment(), "rates": device_rates(), "rows": []}
    for name in options.cases:
        case = CASES[name]
        row = {"case": vars(case), "floor": floors(case, result["rates"]), "ours": ours(case)}
        torch.cuda.empty_cache()
        if options.compile:
            row["compiled"] = ours(case, compiled=True)
            torch.cuda.empty_cache()
        if not options.no_peer:
            row["peer"] = peer(case)
            torch.cuda.empty_cache()
        result["rows"].append(row)
        (options.out / f"gpu_training{of}.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / f"gpu_training{of}.md").write_text(as_markdown(result))
        print(as_markdown(result), flush=True)


if __name__ == "__main__":
    main()
