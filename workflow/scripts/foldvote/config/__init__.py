"""The configuration: its models, one module per stage, and how it is read."""
