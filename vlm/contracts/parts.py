"""The parts of a model by name, and the nodes that stand inside a part's node of the configuration."""

from __future__ import annotations

PARTS = ("encoder", "connector", "llm", "fusion")
ATTACHED = {"encoder": ("views",), "llm": ("tokenizer", "template")}
