"""Scores, calibration and intervals of probabilities, without networks."""
