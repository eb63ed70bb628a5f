"""Pictures of a benchmark as a model's encoder takes them."""

from __future__ import annotations

from torch import Tensor

from vlm.contracts.benchmark import Picture
from vlm.contracts.errors import InputError, RunError
from vlm.data.pictures import decode
from vlm.data.processor import Processor


def views_of(processor: Processor, picture: Picture) -> list[Tensor]:
    """Finished views. Raises: InputError for a clip; RunError for a picture that cannot be shown."""
    if picture.type != "image":
        raise InputError(f"{picture.id}: this model takes pictures, no clips; choose benchmarks of pictures")
    try:
        return processor.finished(processor.views(decode(picture.read(), picture.id, least=processor.views.least)))
    except (InputError, OSError) as error:
        raise RunError(
            f"{picture.id} cannot be shown: {error}; a score without it would be no score of this benchmark. Copy "
            "its files again; the same command goes on"
        ) from error
