"""Whether today's released serving engines can serve an export, said with the version and where it was read.

Read in the released wheels, not run: the registry of models and the model files name the classes and the fields that
they use. A statement is true of the version that it names; a newer release may do more.
"""

from __future__ import annotations

from dataclasses import dataclass

from hybrid_nas.architecture import Architecture, Attention, Mamba2, ParallelHybrid
from hybrid_nas.export.rules import first

VLLM = "vLLM 0.33.0"
SGLANG = "SGLang 0.5.23"
REGISTRY = "vllm/model_executor/models/registry.py"
MODELS = "sglang/srt/models"
VLLM_FILES = {"granite": "granitemoehybrid.py", "falcon-h1": "falcon_h1.py", "nemotron-h": "nemotron_h.py"}
SGLANG_FILES = VLLM_FILES
MISSING = {
    (VLLM, "bamba"): f"support for Bamba ended with vLLM 0.23.0 ({REGISTRY})",
    (SGLANG, "bamba"): f"no model file for Bamba ({MODELS})",
    (VLLM, "qwen3-next"): "its Qwen3-Next was written for attention among Gated DeltaNet, and this export has none",
    (SGLANG, "qwen3-next"): "its Qwen3-Next was written for attention among Gated DeltaNet, and this export has none",
    (VLLM, "jamba"): "its Jamba has a classifier of its own and reads none that is tied to the embedding, as this "
    "export's is (vllm/model_executor/models/jamba.py)",
    (SGLANG, "jamba"): f"no model file for Jamba ({MODELS})",
    (VLLM, "zamba2"): "its Zamba2 was written for attention among Mamba-2, and this export has none",
    (SGLANG, "zamba2"): f"no model file for Zamba2 ({MODELS})",
    (VLLM, "fla"): f"no model of flash-linear-attention ({REGISTRY})",
    (SGLANG, "fla"): f"no model of flash-linear-attention ({MODELS})",
    (VLLM, "hybrid"): "its Transformers backend takes models of full or sliding-window attention alone "
    "(vllm/model_executor/models/transformers)",
    (SGLANG, "hybrid"): f"its Transformers backend takes models of full or sliding-window attention alone ({MODELS})",
}


@dataclass(frozen=True)
class Serving:
    """Whether `engine`, a name with a version, can serve an export, and why."""

    engine: str
    able: bool
    why: str

    def __str__(self) -> str:
        return f"{self.engine}: {'yes' if self.able else 'no'}, {self.why}"


def serving(format: str, architecture: Architecture) -> tuple[Serving, ...]:
    """One statement an engine."""
    if format in ("megatron", "torchtitan"):
        training = "this is a training format; the trained weights can be served in a class of transformers"
        return (
            Serving(VLLM, False, training),
            Serving(SGLANG, False, training),
        )
    return (
        _engine(VLLM, format, architecture, VLLM_FILES, "vllm/model_executor/models"),
        _engine(SGLANG, format, architecture, SGLANG_FILES, MODELS),
    )


def _engine(engine: str, format: str, architecture: Architecture, files: dict[str, str], folder: str) -> Serving:
    if format not in files:
        return Serving(engine, False, MISSING.get((engine, format), "no model file for this class"))
    attention, mamba = _parts(architecture)
    if attention is None or mamba is None:
        return Serving(engine, False, "its hybrid cache was written for attention and Mamba-2 together")
    if format == "granite" and attention.heads * attention.head_dim != architecture.width:
        return Serving(
            engine,
            False,
            f"its Granite takes head_dim as width / heads, {architecture.width / attention.heads:g}, "
            f"and this design has {attention.head_dim}",
        )
    return Serving(engine, True, f"has {files[format]} ({folder}; read, not run){_parallel(mamba)}")


def _parts(architecture: Architecture) -> tuple[Attention | None, Mamba2 | None]:
    """The attention and the Mamba-2 of a model, in layers of their own or in parallel."""
    hybrid: ParallelHybrid | None = first(architecture, ParallelHybrid)
    if hybrid is not None:
        return hybrid.attention, hybrid.mamba
    return first(architecture, Attention), first(architecture, Mamba2)


def _parallel(mamba: Mamba2) -> str:
    """How far tensor parallelism goes: heads must divide, and groups too unless there is one."""
    if mamba.groups == 1:
        return f"; tensor parallel where it divides {mamba.heads} Mamba-2 heads"
    return f"; tensor parallel where it divides {mamba.groups} groups"
