"""The vote of the members: methods, their fit, their comparison, the leaderboard."""
