"""Files, tables, paths and ids."""
