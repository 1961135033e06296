"""The embedded demo: drawn faces in the home task's folders, reproducible to the byte."""
