"""Train and study vision-language models. `import vlm` is light: torch is loaded by the first call that needs it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm.library import build_model, generate, import_checkpoint, load_model, logits, parameter_report

__version__ = "0.1.0"
__all__ = ["build_model", "generate", "import_checkpoint", "load_model", "logits", "parameter_report"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("vlm.library"), name)
    raise AttributeError(f"module 'vlm' has no attribute {name!r}; it offers {', '.join(__all__)}")
