"""Names that old programs take from NumPy and the standard library.

Chainer itself needs none of them. They are given back to a program that is
run by ``python -m shared_linear``, and never by the import alone: everybody
else in the process sees them.
"""
from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

from shared_linear.stack import old_modules


def give_back() -> list[str]:
    """Sets each name that is not there; the names that it set."""
    return [name for owner, attribute, value, name in _wanted()
            if _give(owner, attribute, value)] + list(old_modules.give_back())


def _give(owner: Any, attribute: str, value: Any) -> bool:
    # Not by hasattr: NumPy warns of some names, or raises, by a function.
    if attribute in vars(owner):
        return False
    setattr(owner, attribute, value)
    return True


def _wanted() -> Iterator[tuple[Any, str, Any, str]]:
    import numpy
    for name, value in numpy_names(numpy).items():
        yield numpy, name, value, 'numpy.' + name
    for owner, name, value in _library_names():
        yield owner, name, value, '{}.{}'.format(
            owner.__qualname__ if isinstance(owner, type)
            else owner.__name__, name)


def numpy_names(numpy: Any) -> dict[str, Any]:
    """Names of old NumPys, and what they were."""
    import math
    import warnings
    names: dict[str, Any] = {
        # Gone from NumPy 1.24: the types of Python.
        'int': int, 'float': float, 'bool': bool, 'object': object,
        'str': str, 'complex': complex, 'long': int, 'unicode': str,
        # Modules that could be seen through it.
        'math': math, 'warnings': warnings,
        # Gone from 1.23, 2.0 and later.
        'asscalar': lambda a: numpy.asarray(a).item(),
        'alltrue': numpy.all, 'sometrue': numpy.any,
        'product': numpy.prod, 'cumproduct': numpy.cumprod,
        'round_': numpy.round,
        'in1d': _in1d(numpy),
        'row_stack': numpy.vstack,
        'trapz': getattr(numpy, 'trapezoid', None),
        'msort': lambda a: numpy.sort(a, axis=0),
        'asfarray': _asfarray(numpy),
        'mat': numpy.asmatrix,
        'disp': _disp,
        'find_common_type': _find_common_type(numpy),
        'issctype': lambda rep: isinstance(rep, (type, numpy.dtype))
        and numpy.dtype(rep).type is not numpy.object_,
        'obj2sctype': lambda rep, default=None: numpy.dtype(rep).type,
        'sctype2char': lambda kind: numpy.dtype(kind).char,
        'Inf': numpy.inf, 'Infinity': numpy.inf, 'infty': numpy.inf,
        'PINF': numpy.inf, 'NINF': -numpy.inf, 'NaN': numpy.nan,
        'NAN': numpy.nan, 'PZERO': 0.0, 'NZERO': -0.0,
        'float_': numpy.float64, 'complex_': numpy.complex128,
        'cfloat': numpy.complex128, 'singlecomplex': numpy.complex64,
        'longfloat': numpy.longdouble, 'longcomplex': numpy.clongdouble,
        'clongfloat': numpy.clongdouble,
        'string_': numpy.bytes_, 'unicode_': numpy.str_,
        'sctypes': {
            'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
            'uint': [numpy.uint8, numpy.uint16, numpy.uint32, numpy.uint64],
            'float': [numpy.float16, numpy.float32, numpy.float64,
                      numpy.longdouble],
            'complex': [
                numpy.complex64, numpy.complex128, numpy.clongdouble],
            'others': [bool, object, bytes, str, numpy.void]},
        'typeDict': numpy.sctypeDict,
        'cast': _Cast(numpy),
    }
    for name in ('AxisError', 'ComplexWarning', 'RankWarning',
                 'TooHardError', 'VisibleDeprecationWarning'):
        # They moved here in 1.25.
        names[name] = getattr(numpy.exceptions, name, None)
    return {name: value for name, value in names.items() if value is not None}


def _in1d(numpy: Any) -> Callable[..., Any]:
    def in1d(ar1: Any, ar2: Any, assume_unique: bool = False,
             invert: bool = False) -> Any:
        return numpy.isin(numpy.ravel(ar1), ar2, assume_unique, invert)
    return in1d


def _asfarray(numpy: Any) -> Callable[..., Any]:
    def asfarray(a: Any, dtype: Any = numpy.float64) -> Any:
        if not numpy.issubdtype(dtype, numpy.inexact):
            dtype = numpy.float64
        return numpy.asarray(a, dtype=dtype)
    return asfarray


def _find_common_type(numpy: Any) -> Callable[..., Any]:
    def find_common_type(array_types: Any, scalar_types: Any) -> Any:
        arrays = [numpy.dtype(t) for t in array_types]
        scalars = [numpy.dtype(t) for t in scalar_types]
        if not arrays or not scalars:
            return numpy.result_type(*(arrays or scalars))
        array, scalar = (numpy.result_type(*t) for t in (arrays, scalars))
        # A scalar counts only if it is of a higher kind.
        order = 'buifcO'
        higher = order.find(scalar.kind) > order.find(array.kind)
        return scalar if higher else array
    return find_common_type


class _Cast:

    """``numpy.cast['f'](x)``."""

    def __init__(self, numpy: Any) -> None:
        self._numpy = numpy

    def __getitem__(self, kind: Any) -> Callable[[Any], Any]:
        return lambda x: self._numpy.asarray(x).astype(kind)


def _disp(mesg: Any, device: Any = None, linefeed: bool = True) -> None:
    print(mesg, file=device, end='\n' if linefeed else '', flush=True)


def _library_names() -> Iterator[tuple[Any, str, Any]]:
    import base64
    import collections.abc
    import configparser
    import errno
    import fractions
    import inspect
    import math
    import os
    import threading
    import time
    import unittest

    for name in collections.abc.__all__:                # gone from 3.10
        yield collections, name, getattr(collections.abc, name)
    yield time, 'clock', time.perf_counter              # 3.8
    yield fractions, 'gcd', math.gcd                    # 3.9
    yield base64, 'encodestring', base64.encodebytes    # 3.9
    yield base64, 'decodestring', base64.decodebytes    # 3.9
    yield threading.Thread, 'isAlive', threading.Thread.is_alive  # 3.9
    yield inspect, 'getargspec', _getargspec            # 3.11
    yield inspect, 'ArgSpec', ArgSpec                  # 3.11
    yield configparser, 'SafeConfigParser', configparser.ConfigParser  # 3.12
    yield os, 'errno', errno                            # 3.7
    for old, new in [('assertEquals', 'assertEqual'),   # 3.12
                     ('assertNotEquals', 'assertNotEqual'),
                     ('assertAlmostEquals', 'assertAlmostEqual'),
                     ('assertNotAlmostEquals', 'assertNotAlmostEqual'),
                     ('assertRegexpMatches', 'assertRegex'),
                     ('assertRaisesRegexp', 'assertRaisesRegex'),
                     ('assert_', 'assertTrue')]:
        yield unittest.TestCase, old, getattr(unittest.TestCase, new)


ArgSpec = collections.namedtuple(
    'ArgSpec', 'args varargs keywords defaults')


def _getargspec(function: Any) -> Any:
    import inspect
    args, varargs, keywords, defaults, only, _, annotations = (
        inspect.getfullargspec(function))
    if only or annotations:
        raise ValueError(
            'the function has keyword-only arguments or annotations: '
            'inspect.getfullargspec gives them')
    return ArgSpec(args, varargs, keywords, defaults)
