"""Seconds from nothing to the first loss of a captured training, in fresh processes: with an empty Triton cache, then
with the one that this left; kernels compiled one by one (HYBRID_NAS_COMPILE_AHEAD=0), and several at a time.

    python kernels/benchmarks/gpu_first_step.py [--cases width-128 ...]

Counted from CUDA's first use on: building the model, compiling, a warm-up step, the capture, one step. Before that a
process imports (some 4 seconds, most of them torch's). Writes results/gpu_first_step.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_cases import CASES, environment, need_gpu

RESULTS = Path(__file__).parent / "results"


def first_loss(case: str, cache: str, ahead: bool) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).with_name("gpu_training.py")), "--first-step", "--cases", case]
    env = {**os.environ, "TRITON_CACHE_DIR": cache, "HYBRID_NAS_COMPILE_AHEAD": str(int(ahead))}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found = re.search(r"CUDA ([\d.]+) s, first loss ([\d.]+) s after", done.stdout)
    assert found is not None, done.stdout
    return {"cuda_s": float(found[1]), "first_loss_s": float(found[2])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["width-128", "width-256"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    need_gpu()
    rows = {}
    for case in options.cases:
        for ahead in (False, True):
            with tempfile.TemporaryDirectory() as cache:
                name = f"{case}, {'several at a time' if ahead else 'one by one'}"
                rows[name] = {how: first_loss(case, cache, ahead) for how in ("cold", "warm")}
    env = environment()
    lines = [
        f"{env['device']}, torch {env['torch']}, triton {env['triton']}, {env['date']}, commit {env['commit']}",
        "",
    ]
    lines += ["| model | cold: CUDA, then first loss (s) | warm |", "|---|---|---|"]
    for case, row in rows.items():
        cells = (f"{row[how]['cuda_s']:.1f}, {row[how]['first_loss_s']:.1f}" for how in ("cold", "warm"))
        lines.append(f"| {case} | {' | '.join(cells)} |")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu_first_step.json").write_text(json.dumps({"environment": env, "rows": rows}, indent=2) + "\n")
    (options.out / "gpu_first_step.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
