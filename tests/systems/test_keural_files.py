"""Keural's published folder: read, written, and refused where its files do not belong together."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import vlm
from tests.systems.keural_folder import SIZES, keural_model, language_folder, picture, saved, scores
from vlm.build import compose
from vlm.contracts.errors import InputError, RunError
from vlm.export import export
from vlm.interop.keural import encoder_lines
from vlm.models.assemble import create, part


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return language_folder(tmp_path_factory.mktemp("language") / "Small-Mistral")


@pytest.fixture(scope="module")
def model(base):
    return keural_model(base)


@pytest.fixture(scope="module")
def ours(model, tmp_path_factory) -> Path:
    return saved(model, tmp_path_factory.mktemp("ours") / "model")


@pytest.fixture
def published(ours, tmp_path) -> Path:
    return export(ours, "keural", tmp_path / "published")


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_tensors(file: Path, changed) -> None:
    save_file(changed(load_file(file)), file, metadata={"format": "pt"})


# -- there and back ------------------------------------------------------------------------------------------------


def test_export_writes_the_published_files_and_no_others(published):
    files = {str(file.relative_to(published)) for file in published.rglob("*") if file.is_file()}
    adapters = {
        f"{name}_adapter/adapter_{what}" for name in ("sft", "dpo") for what in ("config.json", "model.safetensors")
    }
    assert files == {"encoder/config.json", "encoder/model.safetensors", "projector.pt", *adapters}


def test_what_was_exported_is_imported_the_same_to_the_bit(model, published, base):
    again = vlm.import_checkpoint("keural", published, base=base)
    assert torch.equal(scores(again), scores(model))
    assert vlm.generate(again, "what is this?", [picture()]) == vlm.generate(model, "what is this?", [picture()])


def test_an_imported_model_is_saved_without_its_language_model_and_loads_again(model, published, base, tmp_path):
    folder = saved(vlm.import_checkpoint("keural", published, base=base), tmp_path / "model")
    assert not (folder / "llm.safetensors").exists()
    assert torch.equal(scores(vlm.load_model(folder)), scores(model))


def test_a_model_in_four_bits_comes_back_the_same_if_it_is_asked_for_in_four_bits(base, tmp_path):
    packed = keural_model(base, ("llm.quantize=nf4",))
    folder = export(saved(packed, tmp_path / "model"), "keural", tmp_path / "published")
    assert torch.equal(scores(vlm.import_checkpoint("keural", folder, base=base, quantize="nf4")), scores(packed))
    assert not torch.equal(scores(vlm.import_checkpoint("keural", folder, base=base)), scores(packed))


def test_a_release_from_before_preference_training_has_one_adapter(base, tmp_path):
    tuned = keural_model(base, adapters="lora_r64")
    folder = export(saved(tuned, tmp_path / "model"), "keural", tmp_path / "published")
    assert not (folder / "dpo_adapter").exists()
    again = vlm.import_checkpoint("keural", folder, base=base)
    assert again.llm.adapters == ("sft",)
    assert torch.equal(scores(again), scores(tuned))


def test_the_published_adapters_open_with_peft_on_the_base(model, published, base):
    stacked = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), published / "sft_adapter", adapter_name="sft"
    )
    stacked.load_adapter(published / "dpo_adapter", adapter_name="dpo")
    stacked.base_model.set_adapter(["sft", "dpo"])
    ids = torch.arange(5, 25).unsqueeze(0)
    own = model.llm.logits(model.llm(model.llm.embed(ids), torch.arange(20).unsqueeze(0)))
    torch.testing.assert_close(stacked.eval()(ids).logits, own, atol=1e-4, rtol=1e-4)


def test_a_projector_of_other_names_is_recognised_by_its_shapes(model, published, base):
    state = torch.load(published / "projector.pt", weights_only=True)
    names = {"levels": "level_embedding.weight", "inner.weight": "fc1.weight", "inner.bias": "fc1.bias"}
    names |= {"outer.weight": "fc2.weight", "outer.bias": "fc2.bias"}
    scale = state["scale"]
    renamed = {f"module.{other}": state[own] for own, other in names.items()}
    for name in ("module.fc2.weight", "module.fc2.bias"):
        renamed[name] = renamed[name] * scale  # foreign files have no scale of their own
    torch.save({"state_dict": renamed}, published / "projector.pt")
    again = vlm.import_checkpoint("keural", published, base=base)
    torch.testing.assert_close(scores(again), scores(model), atol=1e-4, rtol=1e-4)


# -- what is refused -----------------------------------------------------------------------------------------------


def test_an_encoder_of_other_insides_is_refused_with_its_first_tensors_and_the_counts(published, base):
    def other(tensors):
        tensors = {name.replace("stem.", "backbone."): tensor for name, tensor in tensors.items()}
        return tensors | {
            "level_emb": torch.zeros(3, 32),
            "norm.weight": torch.zeros(64),
            "distill.head": torch.zeros(2),
        }

    change_tensors(published / "encoder" / "model.safetensors", other)
    (published / "encoder" / "config.json").write_text(json.dumps({"hidden_dim": 32}))
    with pytest.raises(InputError) as refusal:
        vlm.import_checkpoint("keural", published, base=base)
    said = str(refusal.value)
    for words in (
        "missing: blocks.2.",
        "not ours: backbone.0.0.weight",
        "have another shape",
        "projector and adapters",
    ):
        assert words in said, said


def test_projector_and_adapters_are_imported_around_an_encoder_of_ones_own(model, published, ours, base):
    shutil.rmtree(published / "encoder")
    with pytest.raises(InputError, match="encoder=RUN_OR_FOLDER"):
        vlm.import_checkpoint("keural", published, base=base)
    again = vlm.import_checkpoint("keural", published, base=base, encoder=ours)
    assert torch.equal(scores(again), scores(model))


def test_an_encoder_beside_the_config_of_another_is_refused(published, base):
    change(published / "encoder" / "config.json", width=64)
    with pytest.raises(
        InputError, match=r"width 64, but model.safetensors beside it holds one of width 32 \([\d,]+ param"
    ):
        vlm.import_checkpoint("keural", published, base=base)


def test_a_wider_encoder_does_not_go_with_this_projector(published, base, tmp_path):
    wide = keural_model(base, ("encoder.width=64",))
    other = export(saved(wide, tmp_path / "wide"), "keural", tmp_path / "other")
    shutil.rmtree(published / "encoder")
    shutil.copytree(other / "encoder", published / "encoder")
    with pytest.raises(InputError, match=r"projector.pt takes tokens of 32 channels, but the encoder gives 64"):
        vlm.import_checkpoint("keural", published, base=base)


def test_both_published_encoders_are_known_by_their_shapes(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    budgets = {"25m": (), "183m": ("phase.budgets=[513]", "phase.budget_shares=[1.0]")}
    for size in budgets:
        config = compose(["experiment=keural_contrastive", f"encoder=keural_{size}", *budgets[size]]).config
        with torch.device("meta"):
            encoder = create(part(config, "encoder"), views=create(config["encoder"]["views"]).spec)
        assert encoder_lines(tmp_path, encoder.state_dict())[0] == f"encoder=keural_{size}"


def test_a_projector_that_could_run_code_is_never_opened(published, base):
    class Trap:
        def __reduce__(self):
            return (print, ("caught",))

    torch.save({"inner.weight": Trap()}, published / "projector.pt")
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        vlm.import_checkpoint("keural", published, base=base)


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.01])
def test_a_projector_that_is_cut_is_named_so_without_the_insides_of_torch(published, base, kept):
    file = published / "projector.pt"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match=r"projector.pt cannot be read .*cut or damaged.*; copy it again$") as caught:
        vlm.import_checkpoint("keural", published, base=base)
    assert not any(word in str(caught.value) for word in ("Pytorch", "weights_only", "zip", "pickle"))


def test_a_projector_with_more_layers_is_refused_with_what_it_holds(published, base):
    state = torch.load(published / "projector.pt", weights_only=True)
    torch.save(state | {"norm.weight": torch.ones(32)}, published / "projector.pt")
    with pytest.raises(InputError, match=r"no projector of two layers.*norm.weight \[32\]"):
        vlm.import_checkpoint("keural", published, base=base)


def test_adapters_of_another_language_model_are_refused_by_their_shapes(published, tmp_path):
    other = language_folder(tmp_path / "Other-Mistral", intermediate_size=96)
    with pytest.raises(InputError, match=r"the adapter sft was trained on .*Small-Mistral.*lora.*has shape"):
        vlm.import_checkpoint("keural", published, base=other)


def test_a_language_model_of_another_width_is_refused_at_once(published, tmp_path):
    other = language_folder(tmp_path / "Wide-Mistral", hidden_size=64)
    with pytest.raises(InputError, match=r"gives 32 channels, but the language model in .*Wide-Mistral is 64 wide"):
        vlm.import_checkpoint("keural", published, base=other)


def test_another_name_of_the_base_is_told_where_the_shapes_fit(published, base, caplog):
    for name in ("sft", "dpo"):
        config = published / f"{name}_adapter" / "adapter_config.json"
        change(config, base_model_name_or_path="somebody/Other-Mistral")
    with caplog.at_level(logging.WARNING):
        vlm.import_checkpoint("keural", published, base=base)
    assert "sft_adapter was trained on somebody/Other-Mistral" in caplog.text
    change(published / "sft_adapter" / "adapter_config.json", base_model_name_or_path="mistralai/small-mistral")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        vlm.import_checkpoint("keural", published, base=base)
    assert "sft_adapter" not in caplog.text


def test_an_adapter_of_another_kind_is_refused_by_its_key(published, base):
    change(published / "dpo_adapter" / "adapter_config.json", use_dora=True)
    with pytest.raises(InputError, match="use_dora is True"):
        vlm.import_checkpoint("keural", published, base=base)


def test_a_preference_adapter_without_the_one_below_it_is_refused(published, base):
    shutil.rmtree(published / "sft_adapter")
    with pytest.raises(InputError, match=r"sft_adapter is missing; the other adapter was trained on top of it"):
        vlm.import_checkpoint("keural", published, base=base)


def test_the_language_model_has_to_be_named_and_only_where_it_is_left_out(published, base):
    with pytest.raises(InputError, match="base=DIR"):
        vlm.import_checkpoint("keural", published)
    with pytest.raises(InputError, match="base: means nothing to format=purevlm"):
        vlm.import_checkpoint("purevlm", published, base=base)


# -- merged --------------------------------------------------------------------------------------------------------


def test_a_merged_model_says_the_same_without_adapters(model, ours, tmp_path):
    folder = export(ours, "merged", tmp_path / "merged")
    merged = vlm.load_model(folder)
    assert merged.llm.adapters == ()
    assert not (folder / "adapters").exists()
    torch.testing.assert_close(scores(merged), scores(model), atol=1e-4, rtol=1e-4)
    ids = torch.arange(5, 25).unsqueeze(0)
    own = merged.llm.logits(merged.llm(merged.llm.embed(ids), torch.arange(20).unsqueeze(0)))
    theirs = AutoModelForCausalLM.from_pretrained(folder / "llm")(ids).logits
    torch.testing.assert_close(theirs, own, atol=1e-4, rtol=1e-4)


def test_writing_a_language_model_says_nothing_of_the_folder_beside_that_is_moved_into_place(ours, tmp_path, caplog):
    with caplog.at_level(logging.INFO):  # as the commands have it
        export(ours, "merged", tmp_path / "merged")
    assert not [record for record in caplog.records if ".part" in record.getMessage()]


def test_a_model_in_four_bits_is_merged_into_the_folder_that_it_came_from(model, base, tmp_path):
    packed = saved(keural_model(base, ("llm.quantize=nf4",)), tmp_path / "model")
    merged = vlm.load_model(export(packed, "merged", tmp_path / "merged"))
    torch.testing.assert_close(scores(merged), scores(model), atol=1e-4, rtol=1e-4)  # as without the four bits


def test_without_its_base_a_model_is_neither_merged_nor_half_written(base, tmp_path):
    lent = shutil.copytree(base, tmp_path / "lent")
    packed = saved(keural_model(lent, ("llm.quantize=nf4",)), tmp_path / "model")
    shutil.rmtree(lent)
    with pytest.raises(InputError, match="lent"):
        export(packed, "merged", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


# -- every way out -------------------------------------------------------------------------------------------------


def test_a_way_that_does_not_fit_is_refused_with_those_that_do(ours, tmp_path):
    with pytest.raises(InputError, match=r"to=llava.*CLIP or SigLIP.*Pyramid.*It fits: hf, keural, merged"):
        export(ours, "llava", tmp_path / "out")


def test_a_model_of_other_parts_does_not_fit_the_published_layout(tmp_path):
    folder = saved(vlm.build_model(["experiment=purevlm"]), tmp_path / "model")
    with pytest.raises(InputError, match=r"its encoder is Bilinear, the layout's is Pyramid.*It fits: hf"):
        export(folder, "keural", tmp_path / "out")
    with pytest.raises(InputError, match="nothing to merge"):
        export(folder, "merged", tmp_path / "out")


def test_a_model_that_compares_is_refused_and_told_what_its_encoder_is_for(tmp_path):
    towers = vlm.build_model(["experiment=keural_nano_contrastive"])
    towers.processor.tokenizer.fit(["a red kite"])
    with pytest.raises(InputError, match=r"TwoTower.*give its encoder to a model that answers"):
        export(saved(towers, tmp_path / "model"), "hf", tmp_path / "out")


def test_nothing_that_is_there_is_overwritten(ours, tmp_path):
    (tmp_path / "out").mkdir()
    export(ours, "keural", tmp_path / "out")  # an empty folder is as good as none
    with pytest.raises(InputError, match="not empty"):
        export(ours, "keural", tmp_path / "out")


@pytest.mark.parametrize("to", ["hf", "keural", "merged"])
def test_a_full_disk_leaves_no_half_folder(ours, tmp_path, monkeypatch, to):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    places = {"hf": "write_hub", "keural": "write_adapter", "merged": "write_language_model"}
    monkeypatch.setattr(f"vlm.export.{places[to]}", full)
    with pytest.raises(RunError, match="No space left"):
        export(ours, to, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_both_commands_print_their_folder(ours, base, run_command, tmp_path):
    out = run_command("experiments.export", f"model={ours}", "to=keural", f"out={tmp_path / 'published'}")
    assert (out.returncode, out.stdout.strip()) == (0, str(tmp_path / "published")), out.stderr
    words = ("format=keural", f"path={tmp_path / 'published'}", f"base={base}", f"out={tmp_path / 'model'}")
    back = run_command("experiments.import_checkpoint", *words)
    assert (back.returncode, back.stdout.strip()) == (0, str(tmp_path / "model")), back.stderr
    refused = run_command("experiments.export", f"model={ours}", "to=llava", f"out={tmp_path / 'llava'}")
    assert refused.returncode == 2
    assert "does not fit" in refused.stderr


def test_sizes_of_the_small_form_are_those_of_its_file(published):
    config = json.loads((published / "encoder" / "config.json").read_text())
    assert {f"{key}={config[key]}" for key in ("width", "layers", "heads", "token_budget")} <= set(SIZES)
