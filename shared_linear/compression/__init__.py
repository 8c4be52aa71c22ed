"""Layers of a trained network made smaller, without training."""
