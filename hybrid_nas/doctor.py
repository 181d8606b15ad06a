"""What is installed, which implementation would run, and what to do about the rest."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

REQUIRED = ("torch", "numpy", "scipy", "optuna", "pyarrow", "plotly", "typer", "rich", "ruamel.yaml")
OPTIONAL = {
    "optuna-dashboard": ("optuna_dashboard", "watching a study live", "pip install 'hybrid-nas[dashboard]'"),
    "ray": ("ray", "training on a cluster", "pip install 'hybrid-nas[ray]'"),
    "psycopg": ("psycopg", "a study's record in PostgreSQL", "pip install 'hybrid-nas[postgresql]'"),
    "grpcio": ("grpc", "a study's record behind Optuna's proxy", "pip install 'hybrid-nas[grpc]'"),
    "tokenizers": ("tokenizers", "text as symbols (data: bpe)", "pip install 'hybrid-nas[bpe]'"),
    "transformers": ("transformers", "comparing with other implementations", "pip install 'hybrid-nas[hf]'"),
    "triton": (
        "triton",
        "our kernels and the captured training step on an NVIDIA GPU",
        "comes with torch for CUDA, or pip install 'hybrid-nas[cuda]' on a CUDA machine",
    ),
    "mamba-ssm": (
        "mamba_ssm",
        "Mamba-1 on an NVIDIA GPU; Mamba-3 by name",
        "pip install 'hybrid-nas[cuda]' on a CUDA machine",
    ),
    "causal-conv1d": (
        "causal_conv1d",
        "its short convolution on an NVIDIA GPU, by name",
        "pip install 'hybrid-nas[cuda]' on a CUDA machine",
    ),
    "flash-linear-attention": (
        "fla",
        "gated DeltaNet on an NVIDIA GPU, by name",
        "pip install 'hybrid-nas[fla]' on a CUDA machine",
    ),
    "flash-attn": (
        "flash_attn",
        "attention in a window on an NVIDIA GPU",
        "pip install 'hybrid-nas[cuda]' on a CUDA machine",
    ),
}

COMPILED = ("triton", "mamba-ssm", "causal-conv1d", "flash-attn")


@dataclass(frozen=True)
class Finding:
    """One line of the examination. `state`: ok, missing (may be so), or broken (must be mended)."""

    what: str
    state: str
    detail: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything without importing the heavy packages, but the ones whose brokenness only an import shows."""
    findings = [Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for name in REQUIRED:
        version = _version(name)
        advice = "" if version else f"pip install {name}, or install hybrid-nas again"
        findings.append(Finding(name, "ok" if version else "broken", version or "not installed", advice))
    for name, (module, use, advice) in OPTIONAL.items():
        version = _version(name)
        if version is None:
            findings.append(Finding(name, "missing", f"not installed: {use}", advice))
            continue
        try:
            if name in COMPILED:  # compiled: only an import shows that they load
                importlib.import_module(module)
        except ImportError as error:
            findings.append(Finding(name, "broken", f"{version}, but it does not import: {error}", advice))
        else:
            findings.append(Finding(name, "ok", f"{version}: {use}"))
    findings.append(_devices())
    return findings


def implementations() -> dict[str, str]:
    """Which implementation of each operation would run here, of every mixer and FFN in what the trainings multiply in,
    with the reason where the rule gives one, and how they would train (imports torch)."""
    import torch
    from hybrid_nas_kernels import (
        adamw,
        embedding,
        experts,
        gated_delta,
        gated_norm_linear,
        linear_step,
        mamba3,
        parallel_step,
        selective_scan,
    )

    from hybrid_nas.captured import unusable
    from hybrid_nas.design import Design, Ratio, architecture_of_layout
    from hybrid_nas.model import build
    from hybrid_nas.scale import PROXY

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    why = unusable(device)
    dtype = torch.float32 if why else torch.bfloat16
    model = build(architecture_of_layout("AMH", Design(ratio=Ratio(1, 1)), PROXY), generator=0, device=device)
    more = {
        "embedding": embedding.choose(device, PROXY.vocab),
        "experts": experts.choose(device, dtype, PROXY.width, PROXY.ffn_hidden),
        "gated_norm_linear": gated_norm_linear.choose(device),
        "linear_step": linear_step.choose(device, dtype, outputs=PROXY.vocab, channels=PROXY.width),
        "parallel_step": parallel_step.choose(device, dtype),
        "selective_scan": selective_scan.choose(device, dtype),
        "mamba3": mamba3.choose(device),
        "gated_delta": gated_delta.choose(device),
        "adamw": ("torch's own", "") if why else adamw.choose(device),
    }
    found = {**model.implementations(), **{name: ": ".join(filter(None, chosen)) for name, chosen in more.items()}}
    large = linear_step.choose(device, dtype)
    if large[0] != more["linear_step"][0]:
        found["linear_step"] += f"; for the classifier of a model of 1B {large[0]}: {large[1]}"
    found["training_step"] = "CUDA graph, bfloat16" if why is None else f"eager, float32: {why}"
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> Finding:
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if gpus:
        return Finding("device", "ok", f"{len(gpus)} NVIDIA GPU, {cores} CPU cores")
    return Finding(
        "device", "ok", f"{cores} CPU cores, no NVIDIA GPU: proxies train on the CPU; efficiency is by arithmetic"
    )


def to_dicts(findings: list[Finding]) -> list[dict[str, Any]]:
    return [asdict(finding) for finding in findings]
