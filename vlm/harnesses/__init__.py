"""Floor 5: models of ours in the harnesses of others; each file is what one of them asks of a model."""
