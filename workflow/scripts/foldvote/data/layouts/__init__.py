"""The shapes of data folders that can be read, one module per layout."""
