"""Floor 2: run folders become one page. No torch, no Hydra: a report needs neither a model nor its data."""
