"""Folds over groups, and their certificate."""
