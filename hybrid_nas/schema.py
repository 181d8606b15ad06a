"""The JSON Schema of a study file, made from the code that reads it, so that editors complete and check it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hybrid_nas.budget import Budget
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.options import KEYS
from hybrid_nas.presets import PROXIES
from hybrid_nas.roofline import devices
from hybrid_nas.scale import SCALES, Scale
from hybrid_nas.space_file import FAMILIES
from hybrid_nas.speed import SPEEDS, Measure
from hybrid_nas.study_file import NAME, RULES, SAMPLERS, Search

COUNT = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^[0-9.]+([eE][+]?[0-9]+)? ?([kKmMbBgG]|[kKmMgG]i[bB])?$"},
    ]
}

SEEDS = {
    "type": "array",
    "items": {"type": "string"},
    "description": "designs to try first: design files, or names of published models",
}


def study_schema() -> dict[str, Any]:
    """Draft 2020-12."""
    properties: dict[str, Any] = {
        "name": {"type": "string", "pattern": f"^{NAME.pattern}$", "description": "name of the study"},
        "family": {
            "enum": list(FAMILIES),
            "description": "inter: layers of attention among Mamba; intra: layers of both in parallel; hybrid: either",
        },
    }
    for key, spec in KEYS.items():
        properties[key] = {
            "description": spec.meaning,
            "anyOf": [spec.schema, {"type": "array", "items": spec.schema, "minItems": 1}],
        }
    arm = {key: spec.schema for key, spec in KEYS.items()}
    properties["arms"] = {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": {"family": properties["family"], **arm},
            "additionalProperties": False,
        },
        "description": "designs spelled out, one a mapping of keys to one value each, in place of a product of choices",
    }
    scale, budget = _properties(Scale), _properties(Budget)
    preset = {"enum": list(SCALES)}
    named = {"enum": [*SCALES, *PROXIES]}
    properties["proxy"] = _section({"preset": named, **scale, **budget}, named, "what is trained, and for how long")
    properties["budget"] = {
        "type": "object",
        "properties": budget,
        "additionalProperties": False,
        "description": "what one training may spend; the same keys may stand under proxy",
    }
    properties["target"] = _section({"preset": preset, **scale}, preset, "the scale that cost and export speak of")
    properties["objectives"] = {
        "type": "array",
        "items": {"enum": list(QUANTITIES)},
        "minItems": 2,
        "uniqueItems": True,
        "description": "the axes of the front: one at least is trained (loss, recall), one at least is a cost",
    }
    costs = [name for name, quantity in QUANTITIES.items() if not quantity.trained and name not in SPEEDS]
    properties["constraints"] = {
        "type": "object",
        "properties": dict.fromkeys(costs, COUNT),
        "additionalProperties": False,
        "description": "upper bounds at the target scale",
    }
    properties["measure"] = {
        "type": "object",
        "properties": {**_properties(Measure), "device": {"enum": list(devices())}},
        "additionalProperties": False,
        "description": "the device and the shapes of speeds, where those are objectives",
    }
    properties["search"] = {
        "type": "object",
        "properties": {
            **_properties(Search),
            "sampler": {"enum": list(SAMPLERS)},
            "stopping": {"enum": list(RULES)},
            "seeds": SEEDS,
        },
        "additionalProperties": False,
        "description": "how the space is explored",
    }
    properties["data"] = {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "column": {"type": "string"},
                    "bpe": {
                        **COUNT,
                        "description": "number of symbols of a byte-pair encoding; without it tokens are bytes",
                    },
                },
                "anyOf": [{"required": ["path"]}, {"required": ["bpe"]}],
                "additionalProperties": False,
            },
        ],
        "description": "a file or folder of text, .jsonl, .parquet or .npz of ids; default: Python's own source",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hybrid-nas study file",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _section(properties: dict[str, Any], preset: dict[str, Any], description: str) -> dict[str, Any]:
    mapping = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"anyOf": [preset, mapping], "description": description}


def _properties(cls: type) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for field in fields(cls):
        kind = str(field.type)
        if kind.startswith("int"):
            schema: dict[str, Any] = COUNT
        elif kind.startswith("float"):
            schema = {"type": "number"}
        elif kind.startswith("tuple[str"):
            schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        elif kind.startswith("tuple"):
            schema = {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]}
        elif kind.startswith("Literal"):
            schema = {"enum": [part.strip(" \"'") for part in kind[len("Literal[") : -1].split(",")]}
        else:
            schema = {"type": "string"}
        properties[field.name] = {"anyOf": [schema, {"type": "null"}]} if "None" in kind else schema
    return properties
