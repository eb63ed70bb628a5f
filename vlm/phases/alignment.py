"""Alignment: the language model learns to read what a frozen encoder sees."""

from __future__ import annotations

from vlm.phases.sft import SFT


class Alignment(SFT):
    """The objective of supervised fine-tuning; what trains, and on what, is the recipe's.

    Source: Liu et al. 2023 (LLaVA), first stage; with an adapter beside the connector as Keural trains it.
    """
