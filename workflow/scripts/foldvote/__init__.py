"""foldvote: an honest K-fold ensemble for image classification, as functions over paths, arrays and tables."""

__version__ = "0.3.0"
