"""When a preference run has stopped learning what it should, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from vlm.contracts.errors import RunError
from vlm.contracts.recipe import GuardSettings

DRIFT = "val/chosen_drift"
REMEDY = "lower the rate in phase.trainable, or raise phase.loss.chosen_nll (0.05 holds small models)"


class Guards:
    """What a validation must not find. Preference losses go on falling while a model loses its language."""

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings

    @property
    def any(self) -> bool:
        return self.settings.chosen_drift is not None or self.settings.score is not None

    def score(self, metrics: Mapping[str, float]) -> float | None:
        """The guarded score, None if none is. Raises: RunError if nothing that was validated is called so."""
        name = self.settings.score
        if name is None:
            return None
        if name not in metrics:
            known = ", ".join(sorted(metrics))
            raise RunError(
                f"phase.guards.score: no validation gives {name} (found: {known}); name its benchmark in `benchmarks`, "
                "or set the guard to null"
            )
        return metrics[name]

    def faults(self, metrics: Mapping[str, float], before: float | None) -> list[str]:
        """In words, what is beyond its limit; what is no number is. before: the score at step 0."""
        found = []
        limit, drift = self.settings.chosen_drift, metrics[DRIFT]
        if limit is not None and not drift >= -limit:
            found.append(
                f"the held-out chosen answers lost {-drift:.3f} nats each against the reference "
                f"(phase.guards.chosen_drift allows {limit:g})"
            )
        score = self.score(metrics)
        if score is not None and before is not None and not score >= before - self.settings.score_drop:
            found.append(
                f"{self.settings.score} fell from {before:.4f} before the first step to {score:.4f} "
                f"(phase.guards.score_drop allows {self.settings.score_drop:g})"
            )
        return found
