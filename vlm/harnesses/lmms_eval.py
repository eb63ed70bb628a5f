"""A saved model of ours in lmms-eval: `SavedModel`, registered there as `vlm`.

    lmms-eval --model vlm --model_args path=runs/x/model --tasks pope --output_path results --log_samples

An installed lmms-eval finds it through the entry point group `lmms_eval.models`, which names `manifest`. The package
is imported when `SavedModel` or `manifest` is asked for, and no earlier.
Source: lmms_eval.api.model.lmms and lmms_eval.evaluator of lmms-eval 0.7.3.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from vlm.contracts.errors import InputError
from vlm.contracts.sample import Turn

NAME = "vlm"
INSTALL = "pip install lmms-eval"
GREEDY_IGNORES = ("temperature", "top_p", "top_k")  # what only drawing reads; its tasks give them in any case
NOT_OURS = ("image_aspect_ratio",)  # LLaVA's way to cut pictures; how ours sees them is saved with the model


class Answering:
    """What a model class of lmms-eval does; `SavedModel` is this on top of the harness's own base class.

    path: a run folder, its model/ folder or an exported one.   device: None = a GPU if there is one.
    token_budget: visual tokens a picture, for models that have a choice.
    batch_size, max_batch_size: the harness hands them over; questions are answered one by one, so only 1 is taken.
    """

    is_simple = True  # tasks give text, and pictures beside it

    def __init__(
        self,
        path: str | Path,
        device: str | None = None,
        token_budget: int | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if str(batch_size) != "1" or max_batch_size not in (None, 1):
            raise InputError(
                f"batch_size={batch_size}, max_batch_size={max_batch_size}: questions go one by one; give 1"
            )
        import torch

        import vlm

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import Accelerator  # type: ignore[import-not-found]

            self.accelerator = Accelerator()
            self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
            device = device or str(self.accelerator.device)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = vlm.load_model(str(path)).to(self.device)
        self.token_budget = token_budget

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One answer a request. Raises: InputError for a generation option or a medium that cannot be used."""
        found = []
        for request in requests:
            context, options, visuals, row, task, split = request.args
            decoding, settings, stops = decoding_of(options, task)
            answer = self._answer(context, self._pictures(visuals, row, task, split), decoding, settings)
            found.append(until(answer, stops))
            self.cache_hook.add_partial("generate_until", (context, options), found[-1])  # type: ignore[attr-defined]
        return found

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Of each request's continuation how improbable it is, -ln p in nats, and whether it is the greedy answer.

        The harness's choice tasks take the smallest figure, whatever its base class's description says. A continuation
        is judged as a whole answer, its end included; the blank that would join it to the question is no part of it.
        """
        from lmms_eval.api.instance import GenerationResult  # type: ignore[import-not-found]

        alike: dict[Any, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            if len(request.args) != 6:
                raise InputError("lmms-eval asks for an answer without its question (acc_mutual_info); not supported")
            context, _, _, row, task, split = request.args
            alike[context, task, split, row].append(number)
        found: dict[int, Any] = {}
        for (context, task, split, row), numbers in alike.items():
            pictures = self._pictures(requests[numbers[0]].args[2], row, task, split)
            endings = [requests[number].args[1] for number in numbers]
            doc = self.task_dict[task][split][row]  # type: ignore[attr-defined]
            texts = [str(ending(doc) if callable(ending) else ending).lstrip() for ending in endings]
            judged = self._log_probabilities(context, pictures, texts)
            greedy = self._answer(context, pictures, "greedy", {"max_new_tokens": max(n for _, n in judged)})
            for number, text, (logp, _) in zip(numbers, texts, judged, strict=True):
                # Wrapped, because the evaluator turns any bare pair into a text.
                found[number] = GenerationResult(text=(-logp, text == greedy))
        return [found[number] for number in range(len(requests))]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raises: InputError."""
        raise InputError("this model answers one question at a time; choose tasks without rounds")

    def _answer(self, context: str, pictures: list[Image.Image], decoding: str, settings: dict[str, Any]) -> str:
        import vlm

        return vlm.generate(self.model, context, pictures, None, decoding, self.token_budget, **settings)

    def _pictures(self, visuals: Any, row: int, task: str, split: str) -> list[Image.Image]:
        given: Any = visuals(self.task_dict[task][split][row]) if callable(visuals) else visuals  # type: ignore[attr-defined]
        pictures = [] if given is None else [given] if isinstance(given, Image.Image) else list(given)
        for picture in pictures:
            if not isinstance(picture, Image.Image):
                raise InputError(
                    f"{task}, row {row}: {type(picture).__name__} is no picture; this model takes pictures"
                )
        return [picture.convert("RGB") for picture in pictures]

    def _log_probabilities(
        self, context: str, pictures: list[Image.Image], texts: list[str]
    ) -> list[tuple[float, int]]:
        from vlm.models.likelihood import log_probabilities

        processor = self.model.processor
        made = [processor.finished(processor.views(picture)) for picture in pictures]
        asked = Turn("user", (*range(len(made)), context))
        turns = [(asked, Turn("assistant", (text,))) for text in texts]
        example = processor.alternatives(turns, made, range(len(made)), self.token_budget)
        return log_probabilities(self.model, [example], [len(texts)], self.token_budget)[0]


def decoding_of(options: Mapping[str, Any], task: str = "") -> tuple[str, dict[str, Any], list[str]]:
    """A task's generation_kwargs -> our decoding, options of `vlm.generate`, and texts that end an answer.

    Drawing takes do_sample (or, where that is not given, a temperature) and a temperature above 0; the rest is greedy,
    or a beam. Raises: InputError for an option that has no meaning here.
    """
    left = {name: value for name, value in options.items() if value is not None and name not in NOT_OURS}
    ends = left.pop("until", [])
    stops = [ends] if isinstance(ends, str) else list(ends)
    beams, temperature = left.pop("num_beams", 1), left.get("temperature", 1.0)
    draws = left.pop("do_sample", "temperature" in left) and temperature > 0
    if draws and beams > 1:
        raise InputError(f"{task}: num_beams={beams} together with do_sample; give one of them in --gen_kwargs")
    kept = {name: left.pop(name) for name in ("max_new_tokens", "repetition_penalty") if name in left}
    drawn = {name: left.pop(name) for name in GREEDY_IGNORES if name in left}
    if left:
        raise InputError(f"{task}: generation option {', '.join(sorted(left))} means nothing to this model")
    if draws:
        return "top_k", {"temperature": 1.0, **drawn, **kept}, stops
    if beams > 1:  # transformers' own beam, which the harness's other models use
        return "beam", {"num_beams": beams, "length_penalty": 1.0, "early_stopping": False, **kept}, stops
    return "greedy", kept, stops


def until(answer: str, stops: Sequence[str]) -> str:
    """The answer up to the first of the texts that end it."""
    return answer[: min((place for stop in stops if stop and (place := answer.find(stop)) >= 0), default=None)]


def manifest() -> Any:
    """What lmms-eval's registry of models takes."""
    from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

    return ModelManifest(model_id=NAME, simple_class_path=f"{__name__}.SavedModel")


def __getattr__(name: str) -> Any:
    if name == "SavedModel":
        return _saved_model()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _saved_model() -> type:
    try:
        from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
        from lmms_eval.api.registry import register_model  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(f"lmms-eval cannot be imported ({error}); {INSTALL}") from error
    made = type("SavedModel", (Answering, lmms), {"__module__": __name__, "__doc__": Answering.__doc__})
    return register_model(NAME)(made)
