"""Training step and beam search of SupraVL-Nano beside plain PyTorch, in one run, in turn: ratios per CPU second.

python -m benchmarks.captioner
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import vlm
from benchmarks.paired import paired
from benchmarks.plain import TEXT, VISUAL, VOCABULARY, PlainCaptioner, plain_beam
from vlm.contracts.batch import IGNORE, Batch
from vlm.contracts.batch import VISUAL as PLACE
from vlm.losses.language import language_loss

BATCH, STEPS, ROUNDS, CAPTION = 64, 5, 7, 12  # rows; steps a round; rounds; words of a caption row


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours, plain = vlm.build_model(["experiment=supravl_nano"]).train(), PlainCaptioner()
    rows = [
        ("training step, batch 64, rows of 48", _step_ours(ours, TEXT), _step_plain(plain, TEXT), BATCH * STEPS),
        ("training step, batch 64, rows of 12", _step_ours(ours, CAPTION), _step_plain(plain, CAPTION), BATCH * STEPS),
        ("beam 3, 48 tokens", _beam_ours(ours), _beam_plain(plain), 1),
    ]
    print(f"{'work':40}{'ours / cpu s':>14}{'plain / cpu s':>15}{'ratio':>8}   (median, smallest and largest ratio)")
    for name, first, second, items in rows:
        print(f"{name:40}{paired(first, second, items, ROUNDS)}")


def _data(text: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, 3, 112, 112, generator=generator), torch.randint(
        3, VOCABULARY, (BATCH, text), generator=generator
    )


def _step_ours(model: torch.nn.Module, text: int) -> Callable[[], None]:
    images, ids = _data(text)
    rows = torch.cat([torch.full((BATCH, VISUAL), PLACE), ids], dim=1)
    labels = torch.where(torch.arange(rows.shape[1]) > VISUAL, rows, IGNORE)
    batch = Batch(
        ids=rows,
        labels=labels,
        positions=torch.arange(rows.shape[1]).expand_as(rows),
        segment=torch.arange(BATCH).unsqueeze(1).expand_as(rows),
        parent=torch.full((BATCH,), -1),
        sample=torch.arange(BATCH),
        views=images,
        slots=torch.arange(BATCH).unsqueeze(1).expand(BATCH, 2),
        pictures=torch.arange(BATCH),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)

    def work() -> None:
        model.train()
        for _ in range(STEPS):
            loss = language_loss(model(batch).logp, batch)
            optimizer.zero_grad()
            (loss.total / loss.count).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return work


def _step_plain(model: PlainCaptioner, text: int) -> Callable[[], None]:
    images, ids = _data(text)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95))

    def work() -> None:
        model.train()
        for _ in range(STEPS):
            logits = model(images, ids)[:, VISUAL:-1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return work


def _beam_ours(model: torch.nn.Module) -> Callable[[], None]:
    model.processor.tokenizer.fit(["a", "b"])  # type: ignore[union-attr, operator]
    image = _data(1)[0][0]

    def work() -> None:
        vlm.generate(model, "", images=[image], decoding="beam", min_new_tokens=47, max_new_tokens=47)  # type: ignore[arg-type]

    return work


def _beam_plain(model: PlainCaptioner) -> Callable[[], None]:
    image = _data(1)[0][:1]

    def work() -> None:
        model.eval()
        plain_beam(model, image, begin=1, end=-1, width=3, longest=47)

    return work


if __name__ == "__main__":
    main()
