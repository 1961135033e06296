"""The embedded data: a folder of drawn faces in the home task's shape."""

from foldvote.demo.folder import draw_demo

__all__ = ["draw_demo"]
