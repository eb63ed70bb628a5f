"""Train and study vision-language models. `import vlm` is light: torch is loaded by the first call that needs it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm.data.images import image_batches
    from vlm.evaluation.score import score_answer
    from vlm.importing import import_checkpoint
    from vlm.library import build_model, generate, load_model, logits, parameter_report

__version__ = "0.1.0"
__all__ = [
    "build_model", "generate", "image_batches", "import_checkpoint", "load_model", "logits", "parameter_report", "score_answer",
]  # fmt: skip
PLACES = {  # those that are not in vlm.library; the first two need no model, and no torch to start
    "image_batches": "vlm.data.images",
    "score_answer": "vlm.evaluation.score",
    "import_checkpoint": "vlm.importing",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(PLACES.get(name, "vlm.library")), name)
    raise AttributeError(f"module 'vlm' has no attribute {name!r}; it offers {', '.join(__all__)}")
