import shared_linear  # noqa: F401  (before any test imports chainer)
