"""Speeds as objectives: measured where the study's device is in this machine, else predicted, one of the two in a run.

Layers are measured by a process of its own, before trainings begin, so that nothing else runs on the device; a layer
that a large space shows only later is measured while the trainings are held. The table of layers lies in the run
folder, so that a run that goes on measures nothing twice.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from hybrid_nas.architecture import Architecture
from hybrid_nas.design import Refused
from hybrid_nas.speed import Load, Speed
from hybrid_nas.study_file import StudyFile

LAYERS = "layers.parquet"
DECIDED = "speeds"


class Measurer:
    """The speed of an architecture, measured on `device` by a process that starts when first needed. Refused, with the
    reason, for what the device cannot run."""

    def __init__(self, table: Path, load: Load, device: str = "cuda", log: Path | None = None) -> None:
        self.table, self.load, self.device, self.log = table, load, device, log
        self.quiet: Callable[[], AbstractContextManager[object]] = nullcontext
        self.known: dict[str, Speed | str] = {}
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, architecture: Architecture) -> Speed:
        if architecture.id not in self.known:
            with self.quiet():
                self.known[architecture.id] = self._ask(architecture)
        found = self.known[architecture.id]
        if isinstance(found, str):
            raise Refused(found)
        return found

    def _ask(self, architecture: Architecture) -> Speed | str:
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "hybrid_nas.measuring", str(self.table), self.device]
            with (self.log or Path("/dev/null")).open("a") as errors:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    start_new_session=True,  # Ctrl-C is for the search
                )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        message = {"architecture": architecture.to_dict(), "load": vars(self.load)}
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.close()
            return f"it cannot be measured on this {self.device} device: the process that measures ended"
        found = json.loads(answer)
        return Speed.from_dict(found["speed"]) if "speed" in found else str(found["failure"])

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def serve(table: Path, device: str) -> None:
    """The process: an architecture and a load a line, its speed a line."""
    import os

    import torch

    from hybrid_nas.measure import Meter, Table

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    kept = Table(table)
    if kept.others():
        print(kept.others(), file=sys.stderr)
    meter = Meter(torch.device(device), kept)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            speed = meter.speed(Architecture.from_dict(job["architecture"]), Load(**job["load"]))
            answer: dict[str, object] = {"speed": speed.to_dict()}
        except torch.OutOfMemoryError:
            answer = {"failure": f"measuring it takes more memory than {meter.name} has"}
        print(json.dumps(answer), file=answers, flush=True)


def present(device: str) -> bool:
    """Whether the CUDA device of this machine is the one that a study names, like h100."""
    import torch

    return torch.cuda.is_available() and is_named(device, torch.cuda.get_device_name())


def is_named(device: str, name: str) -> bool:
    """Whether `name`, as the driver gives it, is that of a device like h100.

    >>> is_named("a100", "NVIDIA A100-SXM4-80GB"), is_named("h100", "NVIDIA H100 80GB HBM3"), is_named("a10", "A100")
    (True, True, False)
    """
    return device.lower() in re.findall(r"[a-z0-9]+", name.lower())


@contextmanager
def metered(file: StudyFile, folder: Path, log: Path) -> Iterator[StudyFile]:
    """The study with a Measurer where its device is here; as it is, which predicts, elsewhere and where no speed is an
    objective. What a run folder began with it keeps. ValueError where it measured and the device is not here."""
    if file.measure is None:
        yield file
        return
    decided, name = folder / DECIDED, file.measure.device
    here = "measured" if present(name) else "predicted"
    was = decided.read_text().strip() if decided.is_file() else here
    if was == "measured" and here == "predicted":
        raise ValueError(
            f"{folder}: its speeds were measured on {name}, which is not in this machine, and predictions do not "
            "mix with them; go on where the device is, or give another folder with --out"
        )
    decided.write_text(was + "\n")
    if was == "predicted":
        yield file
        return
    measurer = Measurer(folder / LAYERS, file.measure.load(file.target.context), log=log)
    try:
        yield replace(file, meter=measurer)
    finally:
        measurer.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2])
