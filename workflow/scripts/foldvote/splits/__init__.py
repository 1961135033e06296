"""Folds over groups, and the proof that they are sound."""
