"""Floor 0: the shapes in which parts meet. Nothing here imports torch at run time."""
