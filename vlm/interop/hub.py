"""The files that make a folder one that transformers opens with trusted code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm.contracts.language import LanguageSpec
from vlm.interop.carried import carried, flat
from vlm.interop.hub_model import HubConfig

ENTRY = "vlm.hub"  # names no file of a higher floor to import, only one to copy
AUTO = ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText")
CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
---
A vision-language model with its code. It opens where transformers, torch, safetensors and Pillow are{also}:

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained(FOLDER, trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained(FOLDER, trust_remote_code=True)
inputs = processor(images=picture, text="What is this?")
ids = model.generate(**inputs, max_new_tokens=64)
print(processor.decode(ids[0, inputs["input_ids"].shape[1] :]))
```

`model/` is the model folder of the project that it was trained with; adapters are PEFT folders in `model/adapters/`.
"""


def write_hub(folder: Path, config: Mapping[str, Any], language: LanguageSpec) -> None:
    """config.json, processor_config.json, the code and a card. config: the nodes of the model."""
    for name, source in carried(ENTRY, config).items():
        (folder / name).write_text(source, encoding="utf-8")
    module = flat(ENTRY)
    places = dict.fromkeys(AUTO, f"{module}.VisionLanguageModel")
    described = HubConfig(
        vocab_size=language.vocabulary,
        image_place=language.vocabulary,
        hidden_size=language.width,
        max_position_embeddings=language.positions,
        architectures=["VisionLanguageModel"],
        auto_map={"AutoConfig": f"{module}.HubConfig", **places, "AutoProcessor": f"{module}.VisionLanguageProcessor"},
    )
    described.save_pretrained(folder)
    processor = {
        "processor_class": "VisionLanguageProcessor",
        "auto_map": {"AutoProcessor": f"{module}.VisionLanguageProcessor"},
    }
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=1))
    llm = config["llm"]
    also = [
        library for library, needed in (("peft", llm.get("adapters")), ("bitsandbytes", llm.get("quantize"))) if needed
    ]
    (folder / "README.md").write_text(CARD.format(also=f", with {' and '.join(also)}" if also else ""))
