"""Pages that are made while the site is built, so that they cannot be out of date: the study file from its schema, the
commands from Typer, the notebook from its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

HERE = Path(__file__).parent


def on_files(files: Any, config: Any) -> Any:
    for name, text in (
        ("study_file.md", study_file()),
        ("commands.md", commands()),
        ("notebook.md", notebook(json.loads((HERE / "notebook.ipynb").read_text()))),
    ):
        files.append(File.generated(config, name, content=text))
    for file in list(files):
        if file.src_uri.endswith((".py", ".ipynb")):
            files.remove(file)
    return files


def study_file() -> str:
    from hybrid_nas.schema import study_schema

    lines = ["# The study file", "", "Every key, from the JSON Schema (`hybrid-nas schema`). A list is a choice.", ""]
    lines += _keys(study_schema()["properties"], "")
    return "\n".join(lines)


def _keys(properties: dict[str, Any], prefix: str) -> list[str]:
    rows, below = ["| key | values | meaning |", "|---|---|---|"], []
    for key, schema in properties.items():
        inner = schema.get("properties")
        values = "see below" if inner else _values(schema)
        rows.append(f"| `{prefix}{key}` | {values} | {_cell(schema.get('description', ''))} |")
        if inner:
            below += ["", f"## {prefix}{key}", "", *_keys(inner, f"{prefix}{key}.")]
    return rows + below


def _values(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        told = [_values(one) for one in schema["anyOf"]]
        return " or ".join(dict.fromkeys(text for text in told if text))
    kind = schema.get("type", "")
    if kind == "array":
        return f"a list of {_values(schema.get('items', {})) or 'values'}"
    names = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true, false",
        "object": "keys",
    }
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", "≥"), ("maximum", "≤"), ("exclusiveMinimum", ">"), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    text = names.get(kind, "") if isinstance(kind, str) else ", ".join(names.get(one, one) for one in kind)
    pattern = f" like `{_cell(schema['pattern'])}`" if "pattern" in schema else ""
    return f"{text} {', '.join(bounds)}".strip() + pattern


def commands() -> str:
    import typer

    from hybrid_nas.cli import app

    lines = ["# The commands", "", "From the program itself; `hybrid-nas COMMAND --help` says the same.", ""]
    group = typer.main.get_command(app)

    def told(command: Any, name: str) -> None:
        if getattr(command, "commands", None):
            for key, inner in command.commands.items():
                told(inner, f"{name} {key}")
            return
        context = command.make_context(name, [], resilient_parsing=True)
        usage = command.get_usage(context).removeprefix("Usage: ")
        lines.extend([f"## {name}", "", command.help or "", "", "```text", usage.strip(), "```", ""])
        rows = []
        for parameter in command.params:
            names = ", ".join(f"`{one}`" for one in (parameter.opts if parameter.param_type_name == "option" else ()))
            what = names or f"`{parameter.metavar or parameter.name.upper()}`"
            rows.append(f"| {what} | {_cell(getattr(parameter, 'help', '') or '')} |")
        if rows:
            lines.extend(["| | |", "|---|---|", *rows, ""])

    told(group, "hybrid-nas")
    return "\n".join(lines)


def notebook(data: dict[str, Any]) -> str:
    """Cells and what they printed; figures are seen when the notebook itself is opened."""
    lines: list[str] = []
    for cell in data["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell.get("outputs", ()):
            shown = output.get("data", {})
            text = output.get("text") or shown.get("text/plain") or ()
            if "image/svg+xml" in shown:
                lines += ["".join(shown["image/svg+xml"]), ""]
            elif text and "application/vnd.plotly.v1+json" not in shown:
                lines += ["```text", "".join(text).rstrip(), "```", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
