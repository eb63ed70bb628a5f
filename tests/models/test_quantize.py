"""Four bits under an adapter, for real: a small Mistral through NF4 on a CPU, from its folder to a saved run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vlm
from tests import prepared
from tests.hf_folder import CHATML, write_model, write_tokenizer
from vlm import run
from vlm.build import compose
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.recipe import LoraSettings
from vlm.models.llms.adapters import adapter_tensors, merge_adapters
from vlm.models.llms.hf_causal import HFCausal
from vlm.models.llms.quantize import shape_of
from vlm.models.recompute import recompute
from vlm.training import checkpoint
from vlm.training.weights import save_model

IDS = torch.randint(3, 440, (2, 11), generator=torch.Generator().manual_seed(0))
PLACES = torch.arange(11).expand(2, -1)
STACK = {
    "sft": LoraSettings(4, 8.0, 0.0, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_model(folder, "mistral", hidden_size=64, intermediate_size=96, max_position_embeddings=1024)
    write_tokenizer(folder, CHATML)
    return folder


def quantized(folder: Path, adapters=STACK) -> HFCausal:
    llm = HFCausal(str(folder), "nf4", adapters).eval()
    llm.load_pretrained()
    return llm


def logits(llm: HFCausal) -> torch.Tensor:
    return llm.logits(llm(llm.embed(IDS), PLACES))


def test_it_says_what_its_own_unpacked_weights_say(folder):
    """Against float weights that hold the same rounded numbers, forward and backward; storage an eighth and a little."""
    llm, plain = quantized(folder, {}), HFCausal(str(folder)).eval()
    plain.load_pretrained()
    exact = logits(plain).detach()
    for name, module in llm.named_modules():
        if hasattr(module, "unpacked"):
            assert module.weight.dtype == torch.uint8
            assert module.weight.numel() * 2 == shape_of(module.weight).numel()
            assert module.quant_state.nested  # the scales are quantized, too
            plain.put(f"{name}.weight", module.unpacked())
    rows = [llm.embed(IDS).detach().requires_grad_() for _ in range(2)]
    ours, wanted = (model.logits(model(row, PLACES)) for model, row in zip((llm, plain), rows, strict=True))
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    ours.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(rows[0].grad, rows[1].grad, rtol=1e-4, atol=1e-3)
    assert 0.01 < (ours - exact).norm() / exact.norm() < 0.6  # four bits of random weights cost something


def test_with_and_without_gradients_it_rounds_alike_and_its_weights_stand_still(folder):
    """So that a policy begins equal to its reference."""
    llm = quantized(folder)
    before = checkpoint.fingerprint(llm)
    taught = logits(llm)
    with torch.no_grad():
        assert torch.equal(logits(llm), taught)
        with torch.autocast("cpu", torch.bfloat16):
            half = logits(llm)
        with llm.below():
            assert torch.equal(logits(llm), taught)  # a new adapter is zero
    assert half.dtype == torch.bfloat16
    assert checkpoint.fingerprint(llm) == before == checkpoint.fingerprint(quantized(folder))
    assert checkpoint.fingerprint(llm.to(torch.bfloat16)) == before
    assert llm(llm.embed(IDS), PLACES).dtype == torch.bfloat16


def test_recomputed_blocks_give_the_same_gradients(folder):
    gradients = []
    for again in (False, True):
        llm = quantized(folder).train()
        if again:
            recompute(llm)
        for number, tensor in enumerate(adapter_tensors(llm, "sft").values()):
            tensor.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
        llm.logp(llm(llm.embed(IDS), PLACES)[:, :-1], IDS[:, 1:]).sum().backward()
        gradients.append([p.grad for name, p in llm.named_parameters() if ".lora_" in name])
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(two, one)


def words(folder: Path, data: Path, runs: Path) -> list[str]:
    return [
        "data=own_chats", "encoder=none", "connector=none", "llm=hf_causal", f"llm.path={folder}", "llm.quantize=nf4",
        "adapter=lora_r64", "llm.adapters.sft.rank=4", "llm.adapters.sft.alpha=8", "llm.template.max_tokens=64",
        "phase.trainable={encoder: null, connector: null, llm: null, adapter: {sft: 1.0e-3}}", "phase.global_batch=8",
        "phase.log_every=1", "phase.validate_every=100", "phase.save_every=2", "phase.samples=1",
        "phase.schedule.name=constant", "logging.wandb=disabled", "logging.progress=false", "hardware.threads=1",
        "hardware.micro_batch=4", f"paths.data={data}", f"paths.runs={runs}",
    ]  # fmt: skip


def adapters(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(run_folder / "model" / "adapters" / "sft" / "adapter_model.safetensors")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_goes_on_from_its_checkpoint_to_the_same_adapter_and_saves_nothing_else(folder, tmp_path, precision):
    data = prepared.chats(tmp_path / "talk", pictures=False)
    common = [*words(folder, data, tmp_path / "runs"), f"hardware.precision={precision}"]
    whole = Path(run.train(compose([*common, "phase.max_steps=4"]))["run"])
    first = Path(run.train(compose([*common, "phase.max_steps=2"]))["run"])
    second = Path(run.train(compose([*common, "phase.max_steps=4", f"resume={first}"]))["run"])
    assert adapters(whole).keys() == adapters(second).keys()
    assert all(torch.equal(tensor, adapters(second)[name]) for name, tensor in adapters(whole).items())
    assert any(not torch.equal(tensor, adapters(first)[name]) for name, tensor in adapters(whole).items())
    assert [path.name for path in (whole / "model").rglob("*.safetensors")] == ["adapter_model.safetensors"]
    (file,) = (path for path in (whole / "checkpoints").glob("*4-*.ckpt"))
    assert all(".lora_" in name for name in torch.load(file, weights_only=True)["model"])
    base = json.loads((whole / "model" / "config.json").read_text())["base"]
    assert base["path"] == str(folder.resolve())
    model = vlm.load_model(whole)
    assert isinstance(vlm.generate(model, "what is number 3", max_new_tokens=4), str)


def test_its_parameters_are_counted_as_what_they_stand_for(folder, tmp_path):
    own = words(folder, tmp_path, tmp_path)
    packed = vlm.parameter_report(vlm.build_model([*own, "phase.max_steps=1"]))
    plain = vlm.parameter_report(vlm.build_model([*own, "phase.max_steps=1", "llm.quantize=null"]))
    assert packed == plain


def test_random_weights_are_drawn_layer_by_layer_and_follow_the_seed(folder, tmp_path):
    one, two = (vlm.build_model([*words(folder, tmp_path, tmp_path), "phase.max_steps=1"]).llm for _ in range(2))
    with torch.no_grad():
        assert torch.equal(logits(one), logits(two))
    assert logits(one).isfinite().all()


def test_adapters_are_merged_into_the_unquantized_folder_and_never_into_four_bits(folder):
    model = torch.nn.Module()
    model.llm = quantized(folder)
    for number, tensor in enumerate(adapter_tensors(model.llm, "sft").values()):
        tensor.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    stack = HFCausal(str(folder), None, STACK).eval()
    stack.load_pretrained()
    for name, tensor in adapter_tensors(stack, "sft").items():
        tensor.copy_(adapter_tensors(model.llm, "sft")[name])
    merged = merge_adapters(model)
    model.llm = stack
    wanted = merge_adapters(model)
    assert merged.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in merged.items())
    model.llm = HFCausal(str(folder), "nf4", STACK)
    model.llm.initialise()
    with pytest.raises(InputError, match="quantized weights only, and they came from no folder"):
        merge_adapters(model)


def test_quantized_weights_that_came_from_no_folder_are_not_saved(folder, tmp_path):
    model = vlm.build_model([*words(folder, tmp_path, tmp_path), "phase.max_steps=1"])
    with pytest.raises(RunError, match="cannot be saved, and this one was not taken from a folder"):
        save_model(model, tmp_path / "model")


def test_without_its_library_it_says_what_to_install(folder, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "vlm.models.llms.quantize.importlib.util.find_spec",
        lambda name: None if name == "bitsandbytes" else found(name),
    )
    with pytest.raises(InputError, match=r"llm.quantize: nf4 needs the library bitsandbytes.*pip install"):
        HFCausal(str(folder), "nf4")


@pytest.mark.parametrize("raised", ["ImportError", "OSError", "RuntimeError"])
@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (("nf4", {}), r"llm.quantize: nf4 needs .* or leave the weights as they are with llm.quantize=null$"),
        ((None, STACK), r"llm.adapters: PEFT loads .* or remove it with: pip uninstall bitsandbytes$"),
    ],
)
def test_with_a_broken_library_it_says_its_message_the_key_and_what_to_do(
    folder, tmp_path, monkeypatch, raised, form, wanted
):
    package = tmp_path / "bitsandbytes"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {raised}('libcudart.so.11 is missing\\nlong advice')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "vlm.models.llms.nf4", raising=False)
    with pytest.raises(InputError, match=wanted) as caught:
        HFCausal(str(folder), *form)
    assert f"cannot be loaded ({raised}: libcudart.so.11 is missing); install it with: pip install" in str(caught.value)


def test_loading_its_library_and_peft_says_nothing(folder, tmp_path):
    """Of kernels that nothing here calls, for example; in a process of its own, as libraries are loaded once."""
    adapter = "LoraSettings(4, 8.0, 0.0, ['q_proj'])"
    lines = [
        "import logging",
        "logging.basicConfig(level=logging.INFO, format='%(message)s')",
        "from vlm.contracts.recipe import LoraSettings",
        "from vlm.models.llms.hf_causal import HFCausal",
        f"HFCausal({str(folder)!r}, 'nf4', {{'sft': {adapter}}}).load_pretrained()",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=prepared.ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr + done.stdout == ""
