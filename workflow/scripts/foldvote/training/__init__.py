"""The training of one member."""
