"""Training: from a recipe to a run, and from a run to a bundle."""
