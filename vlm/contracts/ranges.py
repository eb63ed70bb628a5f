"""Value ranges for constructor arguments; the configuration check enforces them before anything is built."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0), Lt(2**63)]  # what the random generators take
ViewSide = Annotated[int, Gt(0), Le(4096)]  # pixels; more is a slip of the keyboard, or needs tiles
Probability = Annotated[float, Ge(0), Lt(1)]
