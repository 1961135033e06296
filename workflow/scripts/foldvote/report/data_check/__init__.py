"""The page of the data check."""
