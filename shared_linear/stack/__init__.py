"""Chainer 7.8.1 on today's Python, NumPy and CuPy."""
