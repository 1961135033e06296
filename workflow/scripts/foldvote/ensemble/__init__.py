"""Ensembles: the methods, their fit and comparison, the leaderboard."""
