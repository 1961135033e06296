"""Networks: made by name, with heads for the classes and pretrained weights."""
