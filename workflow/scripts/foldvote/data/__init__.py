"""From image files to packed images with labels."""
