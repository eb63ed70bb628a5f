"""A folder that transformers opens with trusted code, where this project is not installed."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import vlm
from tests.systems.keural_folder import keural_model, language_folder, picture, saved, scores
from vlm.export import export
from vlm.training.given import initialise

QUESTION = "what is on the table?"
LONG = {"max_new_tokens": 12, "eos_token_id": [10_000]}  # no end, so that all twelve are compared

# Run in a process of its own: neither this project nor what only it needs can be imported there.
OPEN = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("vlm", "annotated_types", "simplejpeg", "hydra", "omegaconf", "lightning", "pydantic"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
from PIL import Image
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

folder, picture, question = sys.argv[1:]
options = {"max_new_tokens": 12, "eos_token_id": [10_000]}
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
image = Image.open(picture)
inputs = processor(images=image, text=question)
length = inputs["input_ids"].shape[1]
alone = model.generate(**inputs, **options)
parts = [{"type": "image", "image": image}, {"type": "text", "text": question}]
chat = processor.apply_chat_template([{"role": "user", "content": parts}])
several = processor(images=[[image], []], text=[question, "hello"])
together = model.generate(**several, **options)
beams = model.generate(**inputs, **options, num_beams=3, num_return_sequences=2)
labels = inputs["input_ids"].clone()  # places of pictures in it carry no loss
other = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float64, device_map="cpu")
print(json.dumps({
    "new": alone[0, length:].tolist(),
    "text": processor.decode(alone[0, length:]),
    "prompt_is_kept": torch.equal(alone[:, :length], inputs["input_ids"]),
    "chat": chat["input_ids"].tolist() == inputs["input_ids"].tolist(),
    "together": together[0, -12:].tolist(),
    "beams": list(beams.shape),
    "loss": float(model(**inputs, labels=labels).loss),
    "other": str(other(**inputs).logits.dtype),
    "ids": AutoTokenizer.from_pretrained(folder, trust_remote_code=True).encode(question, add_special_tokens=False),
    "imported": sorted(name for name in sys.modules if name.partition(".")[0] == "vlm"),
}))
"""


def opened(folder: Path, tmp_path: Path) -> dict:
    picture().save(tmp_path / "picture.png")
    (tmp_path / "cwd").mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or "main" not in value}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder), str(tmp_path / "picture.png"), QUESTION],
        cwd=tmp_path / "cwd",
        env=environment | {"HF_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    language_folder(folder / "Small-Mistral")
    return folder


@pytest.fixture(scope="module")
def model(home):
    return keural_model(home / "Small-Mistral")


@pytest.fixture(scope="module")
def exported(model, home) -> Path:
    return export(saved(model, home / "ours"), "hf", home / "exported")


def test_the_folder_alone_gives_the_very_answers_of_this_project(model, exported, tmp_path):
    moved = shutil.copytree(exported, tmp_path / "elsewhere")  # what it needs lies inside
    found = opened(moved, tmp_path)
    assert found["text"] == vlm.generate(model, QUESTION, [picture()], **LONG)
    assert len(found["new"]) == 12
    assert found["prompt_is_kept"]
    assert found["chat"]
    assert found["together"] == found["new"]  # a shorter row beside it changes nothing
    assert found["beams"][0] == 2
    assert found["loss"] > 0
    assert found["other"] == "torch.float64"
    assert found["ids"] == model.processor.tokenizer.encode(QUESTION)
    assert found["imported"] == []


def test_a_model_in_four_bits_is_in_four_bits_there_too(home, tmp_path):
    packed = keural_model(home / "Small-Mistral", ("llm.quantize=nf4",))
    folder = export(saved(packed, tmp_path / "ours"), "hf", tmp_path / "exported")
    assert opened(folder, tmp_path)["text"] == vlm.generate(packed, QUESTION, [picture()], **LONG)


@pytest.mark.parametrize("experiment", ["purevlm", "keural_nano_sft"])
def test_models_of_other_parts_open_as_well(experiment, tmp_path):
    model = vlm.build_model([f"experiment={experiment}"])
    torch.manual_seed(0)
    initialise(model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.processor.tokenizer.fit([QUESTION, "a red circle", "two blue squares and a kite"])
    folder = export(saved(model, tmp_path / "ours"), "hf", tmp_path / "exported")
    assert opened(folder, tmp_path)["text"] == vlm.generate(model, QUESTION, [picture()], **LONG)


def test_this_project_loads_what_it_exported(model, exported):
    assert torch.equal(scores(vlm.load_model(exported)), scores(model))


def test_its_adapters_open_with_peft_on_the_language_model_inside(model, exported):
    adapters = exported / "model" / "adapters"
    inside = AutoModelForCausalLM.from_pretrained(exported / "model" / "llm")
    stacked = PeftModel.from_pretrained(inside, adapters / "sft", adapter_name="sft")
    stacked.load_adapter(adapters / "dpo", adapter_name="dpo")
    stacked.base_model.set_adapter(["sft", "dpo"])
    ids = torch.arange(5, 25).unsqueeze(0)
    own = model.llm.logits(model.llm(model.llm.embed(ids), torch.arange(20).unsqueeze(0)))
    torch.testing.assert_close(stacked.eval()(ids).logits, own, atol=1e-4, rtol=1e-4)


def test_a_language_model_in_shards_comes_along_whole(home, tmp_path):
    sharded = shutil.copytree(home / "Small-Mistral", tmp_path / "sharded")
    whole = AutoModelForCausalLM.from_pretrained(sharded)
    (sharded / "model.safetensors").unlink()
    whole.save_pretrained(sharded, max_shard_size="40KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    (sharded / "consolidated.safetensors").write_bytes(b"the same again in another form")
    model = keural_model(sharded)
    folder = export(saved(model, tmp_path / "ours"), "hf", tmp_path / "exported")
    assert not (folder / "model" / "llm" / "consolidated.safetensors").exists()
    assert torch.equal(scores(vlm.load_model(folder)), scores(model))


def test_a_language_model_that_was_trained_as_a_whole_is_in_the_folder_as_it_is_now(home, tmp_path):
    model = keural_model(home / "Small-Mistral")
    for parameter in model.llm.weights().values():
        parameter.requires_grad_(True)
        parameter.data.mul_(1.01)
    folder = export(saved(model, tmp_path / "ours"), "hf", tmp_path / "exported")
    assert torch.equal(scores(vlm.load_model(folder)), scores(model))
    inside = load_file(folder / "model" / "llm" / "model.safetensors")
    assert torch.equal(inside["model.norm.weight"], model.llm.model.norm.weight)


def test_the_code_in_the_folder_is_flat_and_names_this_project_nowhere(exported):
    files = sorted(exported.glob("*.py"))
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert (exported / f"{node.module}.py").exists(), f"{file.name} imports {node.module}"
            elif isinstance(node, ast.ImportFrom | ast.Import):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert all(name and name.partition(".")[0] != "vlm" for name in names), f"{file.name} imports {names}"


def test_an_option_that_cannot_be_had_is_refused_not_dropped(exported):
    from vlm.hub import VisionLanguageModel

    for options in ({"quantization_config": {}}, {"device_map": "balanced"}, {"device_map": {"a": 0, "b": 1}}):
        with pytest.raises(ValueError, match=r"has no such option|lies on one device"):
            VisionLanguageModel.from_pretrained(exported, **options)


def test_rows_that_do_not_fit_their_pictures_are_refused(exported):
    from vlm.hub import VisionLanguageModel, VisionLanguageProcessor

    model, processor = VisionLanguageModel.from_pretrained(exported), VisionLanguageProcessor.from_pretrained(exported)
    inputs = processor(images=picture(), text=QUESTION)
    with pytest.raises(ValueError, match="1 pictures stand in the rows, and none is given"):
        model.generate(inputs["input_ids"])
    with pytest.raises(ValueError, match="2 pictures for 1 places"):
        model(inputs["input_ids"], inputs["pixel_values"].repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match="same token_budget"):
        model.generate(**inputs, token_budget=64)
    for budget in ("64", 64.0, True):
        with pytest.raises(ValueError, match=r"^token_budget: .* is no whole number"):
            processor(images=picture(), text=QUESTION, token_budget=budget)
        with pytest.raises(ValueError, match=r"^token_budget: .* is no whole number"):
            model.generate(**{**inputs, "token_budget": budget})
    finer = processor(images=picture(), text=QUESTION, token_budget=64)
    assert model.generate(**finer, max_new_tokens=3).shape[1] <= finer["input_ids"].shape[1] + 3
