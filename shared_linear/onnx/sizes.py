"""What a size in a graph follows from, told from its numbers in several runs.
"""
from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

# A number in each run.
Numbers = tuple[int, ...]


class Frozen(Exception):

    """The graph holds for one size only; the message says why."""


class Ambiguous(Exception):

    """The runs do not tell what a size follows from: one more would."""


class Source(NamedTuple):

    """Where in the graph a size can be read: a value's axis, or several's.

    Attributes:
        places (tuple of (str, int)): The sizes, to be multiplied.
        numbers (Numbers): What it is in each run.

    """

    places: tuple[tuple[str, int], ...]
    numbers: Numbers


def function_of(name: str) -> str:
    """The exporter's name of a function, Add_0, in that of a part of it."""
    for mark in '_const_', '_tmp_':
        name = name.partition(mark)[0]
    return name


def relative_shape(
        source: Sequence[Any], result: Sequence[Any]) -> numpy.ndarray | None:
    """Reshape's target by 0 (as in the input) and -1 (what is left over).

    None where these two do not suffice. ``source`` and ``result`` are the
    shapes of input and output in all runs.
    """
    if None in source or None in result:
        return None
    inputs = list(zip(*source, strict=True))
    shape = []
    for axis, sizes in enumerate(zip(*result, strict=True)):
        # A size of 0 in all runs would be taken for "as in the input".
        if not any(sizes):
            return None
        if len(set(sizes)) == 1:
            shape.append(sizes[0])
        elif axis < len(inputs) and sizes == inputs[axis]:
            shape.append(0)
        else:
            shape.append(-1)
    return None if shape.count(-1) > 1 else numpy.array(shape, numpy.int64)


def _fit(numbers: Numbers, source: Source) -> tuple[int, int] | None:
    """a and b, integers, for which a * source + b are the numbers."""
    own = source.numbers
    i = next(i for i, n in enumerate(own) if n != own[0])
    a, rest = divmod(numbers[i] - numbers[0], own[i] - own[0])
    b = numbers[0] - a * own[0]
    if rest or a == 0 or any(
            a * n + b != m for n, m in zip(own, numbers, strict=True)):
        return None
    return a, b


def _explained(
        numbers: Numbers, user_input: str, sources: Sequence[Source],
) -> tuple[Source, int, int] | None:
    """The simplest of what a varying number can be: a source, a and b."""
    # The node's own input first, of what else has the same size.
    near = [s for s in sources if s.places[0][0] == user_input]
    singles = [*near, *(s for s in sources if s not in near)]
    fits = [(s, fit) for s in singles if (fit := _fit(numbers, s))]
    # A size itself; a multiple of it; with an offset.
    for accepted in (
            lambda a, b: (a, b) == (1, 0), lambda a, b: b == 0):
        for source, (a, b) in fits:
            if accepted(a, b):
                return source, a, b
    small = singles[:16]
    products = [
        Source(s.places + t.places, tuple(
            n * m for n, m in zip(s.numbers, t.numbers, strict=True)))
        for s, t in itertools.combinations_with_replacement(small, 2)]
    fits += [(s, fit) for s in products if (fit := _fit(numbers, s))
             and fit[1] == 0]
    if not fits:
        return None
    # Two runs allow any a and b, so the smallest a is the likeliest; a third
    # run tells.
    source, (a, b) = min(fits, key=lambda f: (abs(f[1][0]), abs(f[1][1])))
    return source, a, b


def computed_shape(
        onnx: Any, name: str, rows: Sequence[Numbers],
        user_input: str, sources: Sequence[Source],
) -> tuple[list[Any], list[Any]]:
    """Arrays and nodes that compute a shape at run time.

    It is fixed + multiples * size, for each size that it is made of. ``rows``
    are the numbers of each of its places in all runs.
    """
    fixed: list[int] = []
    multiples: dict[Source, list[int]] = {}
    for i, numbers in enumerate(rows):
        if len(set(numbers)) == 1:
            fixed.append(numbers[0])
            continue
        found = _explained(numbers, user_input, sources)
        if found is None:
            raise Frozen('a size in {} is no multiple of it'.format(
                function_of(name)))
        source, a, b = found
        if len(numbers) < 3 and (b or len(source.places) > 1):
            raise Ambiguous
        fixed.append(b)
        multiples.setdefault(source, [0] * len(rows))[i] = a

    made: list[Any] = []
    nodes: list[Any] = []

    def array(values: Sequence[int], suffix: str) -> str:
        part = '{}_{}'.format(name, suffix)
        if part not in (a.name for a in made):
            made.append(onnx.numpy_helper.from_array(
                numpy.array(values, numpy.int64), part))
        return part

    def node(kind: str, *inputs: str, output: str) -> str:
        nodes.append(onnx.helper.make_node(
            kind, inputs, [output], name=output))
        return output

    total = array(fixed, 'fixed') if any(fixed) else None
    for n, (source, factors) in enumerate(multiples.items()):
        end = '_{}'.format(n) if n else ''
        size = None
        for m, (value, axis) in enumerate(source.places):
            tail = end + ('_{}'.format(m) if m else '')
            shape = node('Shape', value, output='{}_shape{}'.format(
                name, tail))
            one = node(
                'Gather', shape, array([axis], 'axis{}'.format(axis)),
                output='{}_size{}'.format(name, tail))
            size = one if size is None else node(
                'Mul', size, one, output='{}_product{}'.format(name, end))
        assert size is not None
        term = node(
            'Mul', size, array(factors, 'multiples' + end),
            output='{}_scaled{}'.format(name, end))
        total = term if total is None else node(
            'Add', term, total, output='{}_sum{}'.format(name, end))
    nodes[-1].output[0] = name
    return made, nodes
