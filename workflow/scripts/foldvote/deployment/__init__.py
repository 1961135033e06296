"""Using and shipping a finished ensemble: predictions of new images, and forms of it that work elsewhere."""
