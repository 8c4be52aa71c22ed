"""Caffe models are read and written again, whatever protobuf is there.

The files are made of a description of our own, not of Chainer's.
"""
import numpy
import pytest

import shared_linear  # noqa: F401

import chainer  # isort: skip
import chainer.functions as F  # isort: skip
import chainer.links as L  # isort: skip

protobuf = pytest.importorskip('google.protobuf.descriptor_pb2')

# As much of caffe.proto as is needed: (name, number, type, repeated).
MESSAGES = {
    'BlobShape': [('dim', 1, 'int64', True)],
    'BlobProto': [
        ('data', 5, 'float', True), ('shape', 7, 'BlobShape', False)],
    'InnerProductParameter': [
        ('num_output', 1, 'uint32', False), ('bias_term', 2, 'bool', False)],
    'ConvolutionParameter': [
        ('num_output', 1, 'uint32', False), ('bias_term', 2, 'bool', False),
        ('kernel_size', 4, 'uint32', True), ('pad', 3, 'uint32', True),
        ('stride', 6, 'uint32', True)],
    'BatchNormParameter': [
        ('use_global_stats', 1, 'bool', False), ('eps', 3, 'float', False)],
    'ScaleParameter': [
        ('axis', 1, 'int32', False), ('bias_term', 4, 'bool', False)],
    'LayerParameter': [
        ('name', 1, 'string', False), ('type', 2, 'string', False),
        ('bottom', 3, 'string', True), ('top', 4, 'string', True),
        ('blobs', 7, 'BlobProto', True),
        ('convolution_param', 106, 'ConvolutionParameter', False),
        ('inner_product_param', 117, 'InnerProductParameter', False),
        ('batch_norm_param', 139, 'BatchNormParameter', False),
        ('scale_param', 142, 'ScaleParameter', False)],
    'NetParameter': [
        ('name', 1, 'string', False), ('layer', 100, 'LayerParameter', True)],
}


@pytest.fixture(scope='module')
def caffe():
    from google.protobuf import descriptor_pool, message_factory
    field_type = protobuf.FieldDescriptorProto
    file = protobuf.FileDescriptorProto(
        name='ours.proto', package='ours', syntax='proto2')
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = field_type.LABEL_REPEATED if repeated else (
                field_type.LABEL_OPTIONAL)
            if kind in MESSAGES:
                message.field.add(
                    name=field, number=number, label=label,
                    type=field_type.TYPE_MESSAGE, type_name='.ours.' + kind)
            else:
                message.field.add(
                    name=field, number=number, label=label,
                    type=getattr(field_type, 'TYPE_' + kind.upper()))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(
        pool.FindMessageTypeByName('ours.' + name)) for name in MESSAGES}


def add_layer(net, name, kind, bottom, *arrays, **parameters):
    layer = net.layer.add(name=name, type=kind, bottom=[bottom], top=[name])
    for array in arrays:
        blob = layer.blobs.add(data=array.ravel().tolist())
        blob.shape.dim[:] = array.shape
    for parameter, values in parameters.items():
        for key, value in values.items():
            if isinstance(value, list):
                getattr(getattr(layer, parameter), key)[:] = value
            else:
                setattr(getattr(layer, parameter), key, value)


def test_a_model_is_read(caffe, tmp_path):
    W = numpy.random.randn(4, 2, 3, 3).astype('f')
    a, b = numpy.random.randn(5, 4 * 6 * 6), numpy.random.randn(5)
    net = caffe['NetParameter'](name='ours')
    add_layer(net, 'conv', 'Convolution', 'data', W, numpy.ones(4),
              convolution_param=dict(
                  num_output=4, kernel_size=[3], pad=[1], stride=[1]))
    add_layer(net, 'relu', 'ReLU', 'conv')
    add_layer(net, 'fc', 'InnerProduct', 'relu', a, b,
              inner_product_param=dict(num_output=5, bias_term=True))
    path = tmp_path / 'ours.caffemodel'
    path.write_bytes(net.SerializeToString())

    from chainer.links import caffe as reader
    model = reader.CaffeFunction(str(path))
    x = numpy.random.randn(2, 2, 6, 6).astype('f')
    y, = model({'data': x}, outputs=['fc'])
    padded = numpy.pad(x.astype('d'), [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = numpy.lib.stride_tricks.sliding_window_view(
        padded, (3, 3), axis=(2, 3))
    h = numpy.einsum('nchwij,ocij->nohw', windows, W.astype('d')) + 1
    expected = numpy.maximum(h, 0).reshape(2, -1) @ a.T + b
    numpy.testing.assert_allclose(y.array, expected, rtol=1e-4, atol=1e-4)


def test_a_normalization_is_read(caffe, tmp_path):
    """As each layer of a ResNet has it."""
    mean, var, gamma, beta = numpy.random.rand(4, 2) + .5
    net = caffe['NetParameter'](name='ours')
    # Caffe keeps sums, and by what to divide them.
    add_layer(net, 'bn', 'BatchNorm', 'data', 2 * mean, 2 * var,
              numpy.array([2.]), batch_norm_param=dict(use_global_stats=True))
    add_layer(net, 'scale', 'Scale', 'bn', gamma, beta,
              scale_param=dict(axis=1, bias_term=True))
    path = tmp_path / 'ours.caffemodel'
    path.write_bytes(net.SerializeToString())

    from chainer.links import caffe as reader
    x = numpy.random.randn(3, 2, 4, 4).astype('f')
    with chainer.using_config('train', False):
        y, = reader.CaffeFunction(str(path))({'data': x}, outputs=['scale'])
    mean, var, gamma, beta = (
        a[:, None, None] for a in (mean, var, gamma, beta))
    numpy.testing.assert_allclose(
        y.array, (x - mean) / numpy.sqrt(var + 1e-5) * gamma + beta,
        rtol=1e-4, atol=1e-5)


def test_a_model_is_written(caffe, tmp_path):
    class Net(chainer.Chain):

        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.fc = L.Linear(3, 4)

        def forward(self, x):
            return F.relu(self.fc(x))

    from chainer.exporters import caffe as exporter
    model = Net()
    model.fc.b.array[...] = [1, 2, 3, 4]
    with chainer.using_config('train', False):
        x = chainer.Variable(numpy.ones((1, 3), 'f'))
        exporter.export(model, [x], str(tmp_path), True)
    written = caffe['NetParameter'].FromString(
        (tmp_path / 'chainer_model.caffemodel').read_bytes())
    layer, = (x for x in written.layer if x.type == 'InnerProduct')
    assert layer.inner_product_param.num_output == 4
    W, b = (numpy.reshape(blob.data, blob.shape.dim) for blob in layer.blobs)
    numpy.testing.assert_array_equal(W, model.fc.W.array)
    numpy.testing.assert_array_equal(b.ravel(), [1, 2, 3, 4])


def test_names_that_the_program_of_protoc_gave():
    from chainer.links.caffe.protobuf3 import caffe_pb2
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (0, 1)
    assert caffe_pb2.Phase.Name(1) == 'TEST'
    assert caffe_pb2.V1LayerParameter.CONVOLUTION == 4
    assert caffe_pb2.V1LayerParameter.LayerType.Value('RELU') == 18
    assert caffe_pb2.PoolingParameter().pool == caffe_pb2.PoolingParameter.MAX
    assert caffe_pb2.DESCRIPTOR.name == 'caffe.proto'
    assert caffe_pb2.NetParameter.DESCRIPTOR.full_name == 'caffe.NetParameter'


def test_a_program_may_have_a_caffe_of_its_own():
    """With other fields under the same names, in protobuf's own pool."""
    from google.protobuf import descriptor_pool
    file = protobuf.FileDescriptorProto(name='caffe.proto', package='caffe')
    file.message_type.add(name='NetParameter')
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    from chainer.links.caffe.protobuf3 import caffe_pb2
    assert caffe_pb2.NetParameter(name='net').name == 'net'
