"""Requests to a model from the command line: one, or a stream of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from vlm.contracts.errors import InputError, Mismatch, RunError
from vlm.contracts.vision import refuse_budget
from vlm.library import generate, load_model

OPTIONS = ("max_new_tokens", "num_beams", "top_k", "temperature")
FIELDS = ("image", "images", "video", "prompt", "id")


def answer(config: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Print the answer to `image` and `prompt`, or to each of `lines` if `requests` is set.

    Raises: InputError if the one request cannot be answered, or for a token budget that the encoder cannot have;
    RunError at the end if some of many could not.
    """
    if config["requests"] is None and config["image"] is None and config["video"] is None and not config["prompt"]:
        raise InputError('image: give image=FILE, video=FILE, prompt="...", or "-" and requests on standard input')
    torch.manual_seed(config["seed"])
    model = load_model(config["model"])
    try:
        refuse_budget(model.encoder.spec.count, model.processor.views.spec, config["token_budget"])
    except Mismatch as error:
        raise InputError(f"token_budget: {config['token_budget']} is given, but {error}") from error
    settings = {name: config[name] for name in ("decoding", "token_budget", "mode")}
    settings |= {name: config[name] for name in OPTIONS if config[name] is not None}
    if config["decoding"] == "sampled":  # draws from numbers of its own; top_k from torch's
        settings["seed"] = config["seed"]
    if config["requests"] is None:
        images = [config["image"]] if config["image"] is not None else []
        print(generate(model, config["prompt"], images=images, video=config["video"], **settings))
        return
    failed = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        reply: dict[str, Any] = {"line": number}
        try:
            request = _request(line)
            reply |= {"id": request["id"]} if "id" in request else {}
            prompt = request.get("prompt", config["prompt"])
            reply["answer"] = generate(model, prompt, images=_images(request), video=request.get("video"), **settings)
        except InputError as error:
            failed += 1
            reply["error"] = str(error)
        print(json.dumps(reply), flush=True)
    if failed:
        raise RunError(f"{failed} requests could not be answered; their lines say why")


def _request(line: str) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a JSON object: {error}") from error
    if not isinstance(request, dict):
        raise InputError('not a JSON object; write {"image": FILE, "prompt": TEXT}')
    unknown = sorted(set(request) - set(FIELDS))
    if unknown:
        raise InputError(f"unknown field {', '.join(unknown)}; known are {', '.join(FIELDS)}")
    if not any(request.get(name) for name in ("prompt", "image", "images", "video")):
        raise InputError("nothing is asked: give image, images, video or prompt")
    return request


def _images(request: Mapping[str, Any]) -> list[str]:
    images = request.get("images", [request["image"]] if "image" in request else [])
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise InputError("images must be a list of file names")
    return images
