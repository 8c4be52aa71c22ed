"""The network: three layers, of which the second is shared or dense."""
import chainer
import chainer.functions as F
import chainer.links as L
from chainer import Variable

from shared_linear import SharedLinear

N_PIXELS = 28 * 28


class MLP(chainer.Chain):
    """784 -> ``n_units`` -> ``n_out_units`` -> ``n_out``, ReLU between.

    Args:
        n_units (int): Units of the first layer.
        n_out_units (int): Units of the second layer, which has no bias.
        n_out (int): Number of classes.
        n_tiles (int): Tiles of the first layer's units that share the second
            layer's weight. It has to divide ``n_units``.
        layer (str): ``'shared'``, or ``'linear'`` for a dense second layer
            to compare with; ``n_tiles`` has no meaning then.

    Raises:
        ValueError: If ``n_tiles`` does not divide ``n_units``, or ``layer``
            is neither of the two.
    """

    def __init__(
            self, n_units: int, n_out_units: int, n_out: int = 10,
            n_tiles: int = 10, layer: str = 'shared') -> None:
        super().__init__()
        if layer not in ('shared', 'linear'):
            raise ValueError(
                f"layer must be 'shared' or 'linear', not {layer!r}")
        with self.init_scope():
            self.l1 = L.Linear(N_PIXELS, n_units)
            if layer == 'shared':
                self.l2 = SharedLinear(
                    n_units, n_out_units, nobias=True, n_tiles=n_tiles)
            else:
                self.l2 = L.Linear(n_units, n_out_units, nobias=True)
            self.l3 = L.Linear(n_out_units, n_out)

    def forward(self, x: Variable) -> Variable:
        """Returns the (N, n_out) scores of an (N, 784) batch of images."""
        h = F.relu(self.l1(x))
        h = F.relu(self.l2(h))
        return self.l3(h)
