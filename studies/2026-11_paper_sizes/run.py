"""Train what trials.parquet lacks, width by width. A GPU where there is one.

python run.py [--time-limit 9min] [--processes 2] [--at-once 4]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_nas.budget import Budget
from hybrid_nas.cli import app
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.table_file import merged, proposals
from hybrid_nas.trial import write_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from paper_study import text_of  # noqa: E402

SIZES = ((32, 256_000, "6e-3"), (48, 560_000, "4e-3"), (64, 975_000, "3e-3"), (128, 3_850_000, "1.5e-3"))
"""Width, parameters, learning rate."""
WIDTHS: dict[int, tuple[str, ...]] = {
    # Heads of 16 channels, one for keys and values in 64, the FFN four times as wide; the rate is 3e-3 x 64 / width.
    width: (
        f"proxy.width={width}",
        f"proxy.params={params}",
        f"proxy.ffn_hidden={4 * width}",
        f"proxy.heads={width // 16}",
        f"proxy.kv_heads={max(1, width // 64)}",
        f"proxy.parallel_heads={width // 32}",
        f"budget.learning_rate={rate}",
    )
    for width, params, rate in SIZES
}


def study(width: int = 64) -> StudyFile:
    source = HERE / "study.yaml"
    return read_study(source.read_text(), str(source), WIDTHS[width], HERE.resolve())


def budgets() -> set[Budget]:
    return {study(width).budget for width in WIDTHS}


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial: width by width."""
    del file
    pairs = [(p, seed) for width in WIDTHS for seed in range(seeds) for p in proposals([study(width)], None)]
    return [(number, proposal, seed) for number, (proposal, seed) in enumerate(pairs)]


def assemble(parts: list[Path]) -> None:
    """trials.parquet out of the parts of the widths, in their order."""
    found = [trial for part in parts for trial in merged([part])[0]]
    write_trials([t.with_changes(number=i) for i, t in enumerate(found)], HERE / "trials.parquet")


if __name__ == "__main__":
    parts = [HERE / "parts" / f"{width}.parquet" for width in WIDTHS]
    text_of(study())
    for part, changes in zip(parts, WIDTHS.values(), strict=True):
        command = ["table", str(HERE / "study.yaml"), "--seeds", "1", "--out", str(part), *sys.argv[1:]]
        app([*command, *(word for change in changes for word in ("--set", change))], standalone_mode=False)
    assemble(parts)
