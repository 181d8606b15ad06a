"""Train what trials.parquet lacks, width by width. Resumable; a GPU where there is one.

python run.py [--time-limit 9min] [--processes 2] [--at-once 4]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_nas.budget import Budget
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from grown import Grown, Setting  # noqa: E402

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


GROWN = Grown(HERE, {f"width {width}": Setting(changes) for width, changes in WIDTHS.items()})


def study(width: int = 64) -> StudyFile:
    return GROWN.study(f"width {width}")


def budgets() -> set[Budget]:
    return {study(width).budget for width in WIDTHS}


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial: width by width."""
    del file, seeds
    return GROWN.jobs()


if __name__ == "__main__":
    GROWN.train(sys.argv[1:])
