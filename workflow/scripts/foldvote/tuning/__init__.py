"""The search of a recipe."""
