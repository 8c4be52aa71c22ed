"""What Chainer 7.8.1 needs on CuPy 14, for its own kernels above all."""
import functools
import re
from typing import Any

# Put before the kernels that need them, and before no others.
PREAMBLES = (
    (re.compile(r'\bfloat16\b'), '#include <cupy/float16.cuh>\n'),
    # A template, so that the type need not be there where no value has it.
    (re.compile(r'\batomicAdd\b'), '''
template <typename T, typename = typename cupy::type_traits::enable_if<
    cupy::type_traits::is_same<T, float16>::value>::type>
__device__ T atomicAdd(T* to, float value) {
    return atomicAdd(to, T(value));
}
'''),
)


def mend_float16_kernels(cuda: Any) -> None:
    """Kernels rely on two things that float16 lost, and do not compile.

    ``atomicAdd`` of a float16 takes nothing but a float16, and the product of
    two, as in ``atomicAdd(&gW[i], g * x[j])``, is a float: so are those that
    the gradients of ``F.negative_sampling`` and
    ``L.BinaryHierarchicalSoftmax`` add. And the type is there only where an
    argument has it, while ``MultiprocessParallelUpdater`` gathers values by
    their addresses.
    """
    elementwise = cuda.elementwise
    if hasattr(elementwise, 'preambles'):
        return

    @functools.wraps(elementwise)
    def with_preamble(
            in_params: str, out_params: str, operation: str, name: str,
            **kwargs: Any) -> Any:
        missing = ''.join(
            preamble for pattern, preamble in PREAMBLES
            if pattern.search(operation))
        if missing:
            kwargs['preamble'] = missing + kwargs.get('preamble', '')
        return elementwise(in_params, out_params, operation, name, **kwargs)

    with_preamble.preambles = PREAMBLES  # type: ignore[attr-defined]
    cuda.elementwise = with_preamble


def keep_scatter_add(cuda: Any) -> None:
    """``ndarray.scatter_add`` is deprecated, for it is ``cupy.add.at`` now.

    It is the gradient of ``x[indices]``, and of more: with warnings as errors
    that fails.
    """
    cupy = cuda.cupy

    def scatter_add(self: Any, slices: Any, value: Any) -> None:
        cupy.add.at(self, slices, value)

    scatter_add.__doc__ = 'As cupy.add.at.'
    cupy.ndarray.scatter_add = scatter_add


def mend_cupy() -> None:
    """Applies the patches, if there is a CuPy that needs them."""
    from chainer.backends import cuda
    if (cuda.available
            and int(cuda.cupy.__version__.partition('.')[0]) >= 14):
        mend_float16_kernels(cuda)
        keep_scatter_add(cuda)
