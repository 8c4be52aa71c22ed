"""What ``train_mnist.py`` is made of: data, network, device, run, report."""
# Readies Chainer for today's NumPy; every module here imports Chainer.
import shared_linear  # noqa: F401
