"""What protobuf 4 and later took: code that protoc made before 3.20."""
from __future__ import annotations

import ast
import functools
import importlib
from importlib import metadata
from typing import Any

from shared_linear.stack.mending import NotAsReleased, Source, mends

_START, _END = "serialized_pb=_b('", "')\n"


@functools.cache
def _protobuf_version() -> tuple[int, ...]:
    return tuple(
        int(n) for n in metadata.version('protobuf').split('.')[:2])


@mends('chainer.links.caffe.protobuf3.caffe_pb2')
def make_messages_of_caffe_anew(source: Source) -> None:
    """Chainer's ``caffe_pb2`` makes its descriptors one by one.

    Today's protobuf refuses that with a TypeError, so that Caffe models are
    neither read (``L.caffe``, and ``VGG16Layers`` or ``ResNet50Layers`` from
    a .caffemodel) nor written. The serialized description is in the file as
    well, and all the classes are made of that.
    """
    if _protobuf_version() < (4, 0):
        return
    start = source.text.find(_START)
    end = source.text.find(_END, start)
    if start < 0 or end < 0:
        raise NotAsReleased('{}: {!r}'.format(source.name, _START))
    described = source.text[start + len(_START) - 1:end + 1]
    # The lines before it stay, and there are no more after it.
    source.text = (
        'from shared_linear.stack.protobuf_4 import names_of\n'
        'globals().update(names_of({}))\n'.format(
            ascii(ast.literal_eval(described).encode('latin1'))))


def names_of(serialized: bytes) -> dict[str, Any]:
    """What protoc would put into the module of a serialized description.

    The classes of its messages, its enumerations, and their values. They
    live in a pool of their own: a program may have another ``caffe.proto``.
    """
    # As modules: who checks the types need not have protobuf's.
    descriptor_pb2, descriptor_pool, message_factory, enum_type_wrapper = (
        importlib.import_module('google.protobuf.' + name) for name in (
            'descriptor_pb2', 'descriptor_pool', 'message_factory',
            'internal.enum_type_wrapper'))
    described = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    file = pool.FindFileByName(described.name)
    names: dict[str, Any] = {'DESCRIPTOR': file}
    for name, message in file.message_types_by_name.items():
        names[name] = message_factory.GetMessageClass(message)
    for name, enumeration in file.enum_types_by_name.items():
        names[name] = enum_type_wrapper.EnumTypeWrapper(
            enumeration)
        for value in enumeration.values:
            names[value.name] = value.number
    return names
