"""Predictions of one member, with test-time augmentation."""
