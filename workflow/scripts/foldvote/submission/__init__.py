"""The file that is handed in."""
