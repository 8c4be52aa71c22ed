"""Every kind of link that shares, for tests of what all of them do."""
import numpy

import shared_linear as sl

ORDER = numpy.random.RandomState(2).permutation(24)

# Makes each for 24 inputs and 6 outputs, or as many as the first input has.
LINKS = {
    'shared': lambda in_size=24, **kwargs: sl.SharedLinear(
        in_size, 6, n_tiles=4, **kwargs),
    'mixed': lambda in_size=24, **kwargs: sl.MixedLinear(
        in_size, 6, n_tiles=4, n_blocks=3, **kwargs),
    'low rank': lambda in_size=24, **kwargs: sl.LowRankLinear(
        in_size, 6, rank=2, n_tiles=4, **kwargs),
}
WITH_ORDER = {
    'shared, order': lambda: LINKS['shared'](order=ORDER),
    'mixed, order': lambda: LINKS['mixed'](order=ORDER),
    'mixed, two orders': lambda: LINKS['mixed'](
        order=numpy.stack([ORDER, ORDER[::-1]])),
    'low rank, order': lambda: LINKS['low rank'](order=ORDER),
}
# The link nearest to a dense one.
FROM_LINEAR = {
    'shared': lambda dense, x=None, order=None: sl.SharedLinear.from_linear(
        dense, 4, x, order),
    'mixed': lambda dense, x=None, order=None: sl.MixedLinear.from_linear(
        dense, 4, x, order, n_blocks=3),
    'low rank': lambda dense, x=None, order=None: (
        sl.LowRankLinear.from_linear(dense, 2, 4, x, order)),
}
# A link of the parameters of another.
FROM_PARAMS = {
    'shared': lambda link: sl.SharedLinear.from_params(
        link.W, link.b, n_tiles=4),
    'mixed': lambda link: sl.MixedLinear.from_params(
        link.W, link.b, n_tiles=4, n_blocks=3),
    'low rank': lambda link: sl.LowRankLinear.from_params(
        link.B, link.A, link.b, n_tiles=4),
}
