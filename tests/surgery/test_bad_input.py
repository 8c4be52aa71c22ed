"""What cannot be done is refused at once, and the model left as it was."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from networks import (
    CNN,
    MLP,
    Article,
    Bias,
    Forgetful,
    Recurrent,
    Skips,
    images,
    snapshot,
    vectors,
)

from shared_linear import surgery


class Refused:

    """Asserts that an edit is refused, and that the model is as before."""

    def __init__(self, model, error, match):
        self.model = model
        self.raises = pytest.raises(error, match=match)

    def __enter__(self):
        self.before = snapshot(self.model)
        return self.raises.__enter__()

    def __exit__(self, *exc):
        suppressed = self.raises.__exit__(*exc)
        assert snapshot(self.model) == self.before
        assert surgery.edits(self.model) == []
        return suppressed


def traced(model, *args):
    surgery.trace(model, *args)
    return model


def test_an_address_that_matches_nothing():
    model = traced(CNN(), images())
    with Refused(model, surgery.EditError,
                 r'insert after /RELU_7.*matches nothing.*/ReLU'):
        surgery.insert_after(model, '/RELU_7', F.tanh)


def test_a_path_that_no_link_has():
    model = CNN()
    with Refused(model, surgery.EditError, 'no link has the path.*/conv1'):
        surgery.insert_after(model, '/con1/ReLU', F.tanh)


def test_without_a_trace_the_first_run_tells():
    model = CNN()
    surgery.insert_after(model, '/ReLU_7', F.tanh)
    surgery.insert_after(model, '/ReLU_1', F.tanh)
    assert len(surgery.edits(model)) == 2
    with pytest.raises(surgery.EditError, match='/ReLU_7.*matches nothing'):
        model(images())
    # It is taken off, the other stays.
    assert [str(one) for one in surgery.edits(model)] == [
        'insert after /ReLU_1: tanh as /tanh_1']
    assert surgery.trace(model, images())['/tanh_1/Tanh'].inserted == 'tanh_1'


def test_an_address_of_the_other_mode():
    with chainer.using_config('train', False):
        model = traced(MLP(), vectors())
        with Refused(model, surgery.EditError,
                     '/Dropout runs in train mode only, and this run is in '
                     'test mode'):
            surgery.insert_after(model, '/Dropout', F.tanh)
    with chainer.using_config('train', True):
        surgery.trace(model, vectors())
    surgery.insert_after(model, '/Dropout', F.tanh)
    assert len(surgery.edits(model)) == 1


def test_an_address_of_the_other_mode_without_a_trace():
    model = MLP()
    before = snapshot(model)
    surgery.insert_after(model, '/Dropout', F.tanh)
    with chainer.using_config('train', False):
        with pytest.raises(surgery.EditError, match='in train mode only'):
            model(vectors())
    assert snapshot(model) == before


def test_an_address_of_the_other_mode_in_other_case():
    with chainer.using_config('train', False):
        model = traced(MLP(), vectors())
        with Refused(model, surgery.EditError, 'in train mode only'):
            surgery.remove(model, '/dropout', input=0)


def test_a_source_of_the_other_mode():
    with chainer.using_config('train', False):
        model = traced(MLP(), vectors())
        with Refused(model, surgery.EditError,
                     'source /Dropout runs in train mode only'):
            surgery.rewire(model, '/l3', input=0, source='/Dropout')


def test_a_source_computed_later():
    model = traced(CNN(), images())
    with Refused(model, surgery.EditError,
                 'source /conv2 is computed later than its reader /conv1'):
        surgery.rewire(model, '/conv1', input=0, source='/conv2')


def test_a_source_that_is_not_one():
    model = traced(CNN(), images())
    with Refused(model, surgery.EditError, 'must be one address, and /conv1'):
        surgery.rewire(model, '/fc', input=0, source='/conv?')
    with Refused(model, surgery.EditError, 'source /cnv2 matches nothing'):
        surgery.rewire(model, '/fc', input=0, source='/cnv2')


def test_a_layer_that_changes_the_shape():
    model = traced(CNN(), images())
    with Refused(model, surgery.EditError,
                 r'insert after /ReLU: lambda as /pool.*from '
                 r'\(2, 4, 8, 8\) to \(2, 4, 4, 4\)'):
        surgery.insert_after(
            model, '/ReLU', lambda h: F.max_pooling_2d(h, 2), name='pool')
    with Refused(model, surgery.EditError,
                 r'insert before /fc.*from \(2, 6, 3, 3\) to \(2, 54\)'):
        surgery.insert_before(model, '/fc', lambda h: F.reshape(h, (2, -1)))


def test_a_layer_that_changes_the_shape_without_a_trace():
    model = CNN()
    before = snapshot(model)
    surgery.insert_after(model, '/ReLU', L.Linear(256, 7))
    with pytest.raises(surgery.EditError, match=r'8\) to \(2, 7\)'):
        model(images())
    assert snapshot(model) == before


def test_a_layer_that_changes_the_shape_of_other_inputs_only():
    model = traced(Skips(), vectors())
    surgery.insert_after(model, '/ReLU', lambda h: F.concat([h, h], 0)[:4])
    with pytest.raises(surgery.EditError, match=r'\(5, 6\) to \(4, 6\)'):
        model(vectors(5))
    # It has worked before, so it stays.
    assert len(surgery.edits(model)) == 1


def test_a_wrong_number_of_outputs():
    model = traced(CNN(), images())
    with Refused(model, surgery.EditError,
                 'returned 2 outputs for one input'):
        surgery.insert_after(model, '/ReLU', lambda h: (h, h))
    with Refused(model, surgery.EditError,
                 'layer returned 2 outputs, and 1 are needed'):
        surgery.replace(model, '/ReLU', lambda h: (h, h))
    with Refused(model, surgery.EditError, 'returned NoneType: it must'):
        surgery.insert_after(model, '/ReLU', lambda h: None)
    with Refused(model, surgery.EditError, 'returned ndarray: it must'):
        surgery.replace(model, '/ReLU', lambda h: h.array)
    with Refused(model, surgery.EditError, 'in place of /fc the layer ret'):
        surgery.replace(model, '/fc', lambda h: None)


def test_a_function_with_several_outputs():
    xs = np.stack([vectors()] * 2)
    model = traced(Recurrent(), xs)
    with Refused(model, surgery.EditError,
                 'has 2 outputs: say which with output=0 to output=1'):
        surgery.insert_after(model, '/lstm/LSTM*', F.tanh)
    with Refused(model, surgery.EditError, 'there is no output 2'):
        surgery.insert_after(model, '/lstm/LSTM*', F.tanh, output=2)
    with Refused(model, surgery.EditError,
                 '2 outputs, and one input cannot stand in'):
        surgery.remove(model, '/lstm/LSTM')
    with Refused(model, surgery.EditError, 'so there is no output 3'):
        surgery.rewire(
            model, '/out', input=0, source='/lstm/LSTM', output=3)


def test_an_input_that_is_not_there():
    model = traced(CNN(), images())
    with Refused(model, surgery.EditError, 'has 1 inputs.* no input 1'):
        surgery.insert_before(model, '/fc', F.tanh, input=1)
    with Refused(model, ValueError, 'count from 0, not -1'):
        surgery.remove(model, '/ReLU', input=-1)
    with Refused(model, TypeError, 'ints from 0, not str'):
        surgery.remove(model, '/ReLU', input='0')


def test_a_replacement_that_the_model_cannot_use():
    model = traced(CNN(), images())
    with Refused(model, surgery.EditError,
                 r'replace /MaxPoolingND.*shape of /MaxPoolingND from '
                 r'\(2, 4, 4, 4\) to \(2, 4, 2, 2\), and the model then'):
        surgery.replace(
            model, '/MaxPoolingND', lambda h: F.max_pooling_2d(h, 4))
    with Refused(model, surgery.EditError,
                 r'remove /GetItem /Pad /MaxPoolingND.*shape of /MaxPooling'
                 r'ND from \(2, 4, 4, 4\) to \(2, 4, 8, 8\)'):
        surgery.remove(model, ['/GetItem', '/Pad', '/MaxPoolingND'])


def test_an_array_where_a_variable_is_needed():
    x = np.zeros(1, np.float32)
    model = traced(Article(), chainer.Variable(x))
    with Refused(model, surgery.EditError,
                 'NumPy computes with a plain array.*wrap the input in a '
                 'chainer.Variable'):
        surgery.insert_after(model, '/AddConstant', F.square, x=x)


def test_an_array_given_to_an_edited_model_later():
    model = Article()
    x = chainer.Variable(np.zeros(1, np.float32))
    surgery.trace(model, x)
    surgery.insert_after(model, '/AddConstant', F.square)
    assert model(x).array == -.5
    with pytest.raises(surgery.EditError, match='wrap the input in a chai'):
        model(x.array)


def test_inside_forget():
    model = traced(Forgetful(), vectors())
    with Refused(model, surgery.EditError,
                 '/ReLU runs inside another function, such as F.forget'):
        surgery.insert_after(model, '/ReLU', F.tanh)
    with Refused(model, surgery.EditError, '/Tanh runs inside another'):
        surgery.remove(model, '/Tanh')
    surgery.insert_after(model, '/Forget', F.tanh)
    assert len(surgery.edits(model)) == 1


def test_a_layer_that_fails():
    def fails(h):
        raise RuntimeError('no such kernel')

    model = traced(CNN(), images())
    with Refused(model, surgery.EditError,
                 'fails with it, by RuntimeError: no such kernel') as info:
        surgery.insert_after(model, '/ReLU', fails)
    assert isinstance(info.value.__cause__, RuntimeError)


def test_what_is_no_layer():
    model = traced(CNN(), images())
    with Refused(model, TypeError, 'callable or a link, not float'):
        surgery.insert_after(model, '/ReLU', 2.)
    with Refused(model, TypeError, r'a class: give FakeQuantize\(\.\.\.\)'):
        surgery.insert_after(model, '/ReLU', surgery.FakeQuantize)
    with Refused(model, TypeError, 'not the link Bias'):
        surgery.insert_after(model, '/ReLU', Bias(), each=True)
    with Refused(model, surgery.EditError,
                 'returns a layer.* but returned int'):
        surgery.insert_after(model, '/ReLU', lambda node: 3, each=True)
    with Refused(model, surgery.EditError, 'in the model already, at /bn1'):
        surgery.insert_after(model, '/ReLU', model.bn1)


def test_names():
    model = traced(CNN(), images())
    with Refused(model, surgery.EditError, "named 'conv1' already; 'conv1_1"):
        surgery.insert_after(model, '/ReLU', F.tanh, name='conv1')
    with Refused(model, ValueError, "cannot be 'a/b'"):
        surgery.insert_after(model, '/ReLU', F.tanh, name='a/b')
    surgery.insert_after(model, '/ReLU', F.tanh)
    with pytest.raises(surgery.EditError, match="'x'; the names are tanh"):
        surgery.revert(model, 'x')
    surgery.revert(model)
    with pytest.raises(surgery.EditError, match='there are no edits'):
        surgery.revert(model, 'x')


def test_what_is_no_model():
    with pytest.raises(TypeError, match='only a chainer.Link'):
        surgery.remove(F.relu, '/ReLU')
    with pytest.raises(ValueError, match='no address is given'):
        surgery.remove(CNN(), [])


def test_what_returns_no_variable():
    class Named(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.inner = Inner()

        def forward(self, x):
            return self.inner(x)['y']

    class Inner(chainer.Chain):
        def forward(self, x):
            return {'y': F.relu(x)}

    model = traced(Named(), vectors())
    with Refused(model, surgery.EditError,
                 '/inner returns dict.* edit a function that runs in it'):
        surgery.insert_after(model, '/inner', F.tanh)
    surgery.insert_after(model, '/inner/ReLU', F.tanh)
    assert len(surgery.edits(model)) == 1
