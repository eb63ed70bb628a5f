"""fVLM's published file: read on any naming, the same in all three modes, and refused by name where it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vlm
from tests import hf_folder
from tests.models.foveal import clip_batch, clips, foveal_model, texts
from vlm.contracts.errors import InputError
from vlm.models.fusion.foveated import Mode
from vlm.training.weights import save_model

MODES: tuple[Mode, ...] = ("coarse_only", "coarse_fine", "autoregressive")
FRAMES = 4
CONFIG = {
    "dino": {"num_attention_heads": 6, "layer_norm_eps": 1e-6},
    "llm": {"num_attention_heads": 4, "rope_theta": 10_000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 128},
}
# Names of this project -> of the public one; `block` with the attention's names of before transformers 5.
BETWEEN = {
    "ask": "encoder.query_input_proj", "tell": "encoder.output_proj", "project": "dino_to_llm",
    "steer": "llm_to_query", "static": "q_static", "first": "q_init",
}  # fmt: skip
SEEN = {
    "cls": "embeddings.cls_token", "mask": "embeddings.mask_token", "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection", "norm": "layernorm",
}  # fmt: skip
BLOCK = {
    "norm1": "norm1", "norm2": "norm2", "q": "attention.attention.query", "k": "attention.attention.key",
    "v": "attention.attention.value", "out": "attention.output.dense", "scale1": "layer_scale1.lambda1",
    "scale2": "layer_scale2.lambda1", "grow": "mlp.fc1", "shrink": "mlp.fc2",
}  # fmt: skip
NEW = {
    f"attention.attention.{old}": f"attention.{new}_proj" for old, new in (("query", "q"), ("key", "k"), ("value", "v"))
}
NEW["attention.output.dense"] = "attention.o_proj"


def public(own: str) -> str:
    part, name = own.split(".", 1)
    if part == "llm":
        return own
    if part == "connector":
        first, *kind = name.split(".")
        return ".".join([BETWEEN[first], *kind])
    if name.startswith("blocks."):
        _, number, first, *kind = name.split(".")
        return ".".join(["encoder.dino.encoder.layer", number, BLOCK[first], *kind])
    first, *kind = name.split(".")
    return ".".join(["encoder.dino", SEEN[first], *kind])


def published() -> dict[str, Tensor]:
    """The small model's 252 tensors under the public names, and the tied head that a state_dict lists too."""
    model = foveal_model("coarse_fine")
    state = {public(name): parameter.detach() for name, parameter in model.named_parameters()}
    assert len(state) == 252
    return state | {"llm.lm_head.weight": state["llm.model.embed_tokens.weight"]}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the attention's names as transformers 5 has them."""
    found = {}
    for name, tensor in state.items():
        for old, new in NEW.items():
            name = name.replace(old, new)
        found[name] = tensor
    return found


def written(folder: Path, content: Mapping[str, Any]) -> Path:
    torch.save(dict(content), folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def imported(path: Path, **given: Any) -> Any:
    return vlm.import_checkpoint("fvlm", path, **given)


def reference(mode: Mode) -> Tensor:
    """Logits of one clip and its text, [FRAMES + 7, 97]."""
    model: Any = foveal_model(mode)
    batch = clip_batch(clips(FRAMES, 1), texts(rows=1), FRAMES, 0)
    with torch.no_grad():
        embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
        return model.llm.logits(model.llm(embeds, batch.positions))[0]


FORMS = {
    "plain": lambda state: {**state, "config": CONFIG},
    "new names": lambda state: {**renamed(state), "config": CONFIG},
    "wrapped": lambda state: {"model_state_dict": state, "step": 31250, "optimizer": {}, "config": CONFIG},
    "compiled": lambda state: {**{f"_orig_mod.{name}": tensor for name, tensor in state.items()}, "config": CONFIG},
    "parallel": lambda state: {**{f"module.{name}": tensor for name, tensor in state.items()}, "config": CONFIG},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_published_file_gives_the_same_logits_in_all_three_modes_however_it_was_saved(form: str, tmp_path: Path):
    model = imported(written(tmp_path, FORMS[form](published())))
    assert next(model.parameters()).dtype == torch.float64
    for mode in MODES if form == "plain" else MODES[1:2]:
        found = vlm.logits(model, clips(FRAMES, 1), texts(rows=1)[0], mode=mode, visual=True)
        # The norms of the language model work in float32 inside.
        torch.testing.assert_close(found, reference(mode), rtol=0, atol=1e-6)


def test_parts_of_another_precision_are_kept_in_the_wider_one_and_a_folder_is_as_good_as_its_file(tmp_path: Path):
    state = {name: t.bfloat16() if name.startswith("llm.") else t.float() for name, t in published().items()}
    written(tmp_path, {**state, "config": CONFIG})
    model = imported(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.llm.model.embed_tokens.weight, state["llm.model.embed_tokens.weight"].float())


def test_with_the_language_model_s_folder_it_reads_text_and_is_saved_whole(tmp_path: Path):
    state = published()
    table = torch.zeros(448, 32, dtype=torch.float64)
    state |= {"llm.model.embed_tokens.weight": table, "llm.lm_head.weight": table}
    (tmp_path / "base").mkdir()
    hf_folder.write_tokenizer(tmp_path / "base")
    model = imported(written(tmp_path, {**state, "config": CONFIG}), base=tmp_path / "base")
    save_model(model, tmp_path / "model")
    again = vlm.load_model(tmp_path / "model")
    view = torch.zeros(3, 56, 56)
    said = [vlm.generate(one, "what is it?", images=[view], max_new_tokens=2) for one in (model, again)]
    assert said[0] == said[1]


def test_without_it_the_model_says_that_it_takes_ids_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    imported(written(tmp_path, {**published(), "config": CONFIG}))
    assert "no tokenizer" in caplog.text
    assert "base=DIR" in caplog.text


def test_its_tensors_have_the_names_of_a_language_model_from_a_folder(tmp_path: Path):
    model = imported(written(tmp_path, {**published(), "config": CONFIG}))
    names = {f"{part}.{name}" for part in model.parts for name, _ in getattr(model, part).named_parameters()}
    assert names == dict(foveal_model("coarse_fine").named_parameters()).keys()


def change(name: str, tensor: Tensor | None) -> dict[str, Any]:
    state: dict[str, Any] = {**published(), "config": CONFIG}
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    return state


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("encoder.dino.encoder.layer.3.attention.attention.key.bias", None, "layer.3.attention.attention.key.bias is missing"),
        ("llm.model.layers.1.self_attn.q_proj.weight", None, "llm.model.layers.1.self_attn.q_proj.weight is missing"),
        ("encoder.query_input_proj.weight", None, "encoder.query_input_proj.weight is missing"),
        ("q_init", None, "q_init is missing"),
        ("llm.model.norm.weight", torch.zeros(31), r"llm.model.norm.weight has shape \[31\], the others ask for \[32\]"),
        ("llm_to_query.weight", torch.zeros(48, 31), r"llm_to_query.weight has shape \[48, 31\]"),
        ("llm.model.embed_tokens.weight", torch.zeros(97), r"embed_tokens.weight has shape \[97\]"),
        ("saliency.weight", torch.zeros(1), "saliency.weight is not part of an fVLM"),
        ("query_input_proj.weight", torch.zeros(48, 48), "are the same part of the model"),
        ("step", 5, "step is no tensor"),
        ("config", {}, "tensors do not tell dino.num_attention_heads, llm.num_attention_heads, llm.rope_theta"),
        ("config", {**CONFIG, "llm": {**CONFIG["llm"], "hidden_act": "gelu"}}, "llm.hidden_act is 'gelu', not 'silu'"),
        ("config", {**CONFIG, "dino": {"num_attention_heads": 7}}, "7 and 4 heads, which do not divide 48 and 32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_published_name(name: str, tensor: Any, message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        imported(written(tmp_path, change(name, tensor)))


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.0])
def test_a_file_that_is_cut_is_said_to_be_so(kept: float, tmp_path: Path):
    file = written(tmp_path, {**published(), "config": CONFIG})
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match=r"checkpoint.pt cannot be read as plain tensors: it is cut or damaged"):
        imported(file)


def test_a_file_that_could_run_code_is_never_opened(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (print, ("caught",))

    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        imported(written(tmp_path, {"q_init": Trap()}))


def test_a_folder_without_the_file_is_told_from_a_damaged_file(tmp_path: Path):
    with pytest.raises(InputError, match=r"checkpoint.pt is not there"):
        imported(tmp_path)


def test_what_belongs_to_other_layouts_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="quantize: means nothing to format=fvlm"):
        imported(tmp_path, quantize="nf4")


def test_the_command_prints_the_folder_of_a_model_that_speaks(run_command, tmp_path: Path):
    state = published()
    table = torch.zeros(448, 32, dtype=torch.float64)
    state |= {"llm.model.embed_tokens.weight": table, "llm.lm_head.weight": table}
    (tmp_path / "base").mkdir()
    hf_folder.write_tokenizer(tmp_path / "base")
    file = written(tmp_path, {**state, "config": CONFIG})
    words = ("format=fvlm", f"path={file}", f"base={tmp_path / 'base'}", f"out={tmp_path / 'model'}")
    done = run_command("experiments.import_checkpoint", *words)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "model")), done.stderr
    assert vlm.load_model(tmp_path / "model").llm.spec.vocabulary == 448
