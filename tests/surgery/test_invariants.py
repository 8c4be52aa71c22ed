"""What holds for every structure of models, whatever is done to it."""
import copy
import pickle

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from networks import Bias as Float32Bias
from structures import (
    STRUCTURES,
    Bomb,
    KeepsAll,
    bomb,
    everything,
)

from shared_linear import surgery


class Bias(Float32Bias):

    """Of any dtype."""

    def forward(self, x):
        return x + F.cast(F.broadcast_to(self.shift, x.shape), x.dtype)


every_structure = pytest.mark.parametrize('name', STRUCTURES)


def run(model, args, train=False, seed=3):
    np.random.seed(seed)
    with chainer.using_config('train', train):
        return model(*args).array


def twin(model):
    """A copy that keeps what is shared shared."""
    return copy.deepcopy(model)


def addresses(model, args):
    with chainer.using_config('train', False):
        return [node for node in surgery.trace(model, *args)
                if len(node.outputs) == 1
                and node.outputs[0].dtype.kind == 'f']


@every_structure
@pytest.mark.parametrize('train', [False, True])
def test_looking_changes_nothing(name, train):
    model, args = STRUCTURES[name]()
    inputs = [getattr(a, 'array', a).copy() for a in args]
    for _ in range(2):  # Uninitialized, and with a state.
        before = everything(model)
        with chainer.using_config('train', train):
            first = str(surgery.trace(model, *args))
            assert everything(model) == before
            assert str(surgery.trace(model, *args)) == first
        assert everything(model) == before
        model(*args)
    for a, b in zip(args, inputs, strict=True):
        np.testing.assert_array_equal(getattr(a, 'array', a), b)


CALLS = {
    'trace': lambda m, x: surgery.trace(m, *x),
    'insert_after': lambda m, x: surgery.insert_after(
        m, '**', Bias(1.), output=0, x=x),
    'each': lambda m, x: surgery.insert_after(
        m, ['ReLU*', 'Tanh*', 'Sigmoid*'], lambda node: Bias(1.), each=True,
        x=x),
    'insert_before': lambda m, x: surgery.insert_before(
        m, 'LinearFunction', F.identity, x=x),
    'replace': lambda m, x: surgery.replace(
        m, ['ReLU*', 'Tanh', 'Sigmoid'], F.tanh, x=x),
    'remove': lambda m, x: surgery.remove(
        m, ['ReLU*', 'Tanh', 'Sigmoid'], x=x),
    'quantize': lambda m, x: surgery.quantize(m, x),
    'fold': lambda m, x: surgery.fold_batch_normalization(m, x),
}


@every_structure
@pytest.mark.parametrize('call', CALLS)
def test_a_call_that_raises_changes_nothing(name, call):
    """With an exception at lines of the model's own code, one by one."""
    model, args = STRUCTURES[name]()
    run(model, args, train=True)
    before = everything(model)
    line, step, raised = 1, 1, 0
    while raised < 4:
        error = [Bomb(), KeyboardInterrupt(), MemoryError()][raised % 3]
        try:
            with bomb(line, error):
                CALLS[call](model, args)
        except (type(error), surgery.EditError):
            raised += 1
            assert everything(model) == before, (line, error)
        except ValueError:
            assert everything(model) == before
            break
        else:
            break  # So many lines do not run.
        line, step = line + step, step + 3
    assert raised or name in ('list', 'sequential', 'children')


@every_structure
def test_a_first_run_that_raises_changes_nothing(name):
    """Of edits that no run has tried yet."""
    model, args = STRUCTURES[name]()
    run(model, args)
    surgery.insert_after(
        model, ['ReLU*', 'Tanh*', 'Sigmoid*'], lambda node: Bias(1.),
        each=True)
    surgery.insert_after(model, '**/LinearFunction*', F.identity)
    before = everything(model)
    with pytest.raises(KeyboardInterrupt), bomb(3, KeyboardInterrupt()):
        if name in ('sequential', 'classifier'):
            raise KeyboardInterrupt
        model(*args)
    assert [str(one) for one in surgery.edits(model)] == before[4]
    assert len(surgery.edits(model)) == 2
    run(model, args)
    assert any('each' in path for path, _ in model.namedparams())


@every_structure
def test_the_authors_code_sees_the_authors_model(name):
    model, args = STRUCTURES[name]()
    run(model, args)
    plain = twin(model)
    expected = [run(plain, args, train) for train in (False, True)]
    nodes = addresses(model, args)
    surgery.insert_after(
        model, [node.address for node in nodes], lambda node: Bias(0.),
        each=True, name='extra', x=args)
    surgery.insert_after(model, nodes[0].address, F.identity, x=args)
    for train, y in zip((False, True), expected, strict=True):
        np.testing.assert_array_equal(run(model, args, train), y)
    for (path, link), (plain_path, other) in zip(
            [(p, k) for p, k in model.namedlinks() if 'extra' not in p
             and 'identity' not in p],
            plain.namedlinks(), strict=True):
        assert path == plain_path
        assert [c.name for c in link.children()] == [
            c.name for c in other.children()]
        if isinstance(link, chainer.ChainList):
            assert len(link) == len(other)


@every_structure
def test_inserted_layers_belong_to_the_model(name, tmp_path):
    model, args = STRUCTURES[name]()
    run(model, args)
    with chainer.using_config('train', False):
        surgery.insert_after(
            model, ['ReLU*', 'Tanh*', 'Sigmoid*'],
            Bias(.25), name='extra', x=args)
    extra, = [path for path, _ in model.namedparams() if 'extra' in path]
    parameter = dict(model.namedparams())[extra]
    # Trained.
    optimizer = chainer.optimizers.SGD(.1).setup(model)
    model.cleargrads()
    loss = model(*args)
    F.sum(loss * loss).backward()
    assert parameter.grad is not None and parameter.grad != 0
    optimizer.update()
    assert parameter.array != np.float32(.25)
    # Saved and loaded, also by who knows nothing of it.
    chainer.serializers.save_npz(tmp_path / 'model.npz', model)
    again = twin(model)
    dict(again.namedparams())[extra].array[...] = 7
    chainer.serializers.load_npz(tmp_path / 'model.npz', again)
    assert dict(again.namedparams())[extra].array == parameter.array
    plain, _ = STRUCTURES[name]()
    run(plain, args)
    chainer.serializers.load_npz(tmp_path / 'model.npz', plain)
    # Copied.
    for new in (twin(model), model.copy('copy')):
        assert dict(new.namedparams())[extra].array == parameter.array
        if name not in ('tied', 'containers', 'stateful', 'links', 'names'):
            np.testing.assert_array_equal(run(new, args), run(model, args))
    # Moved.
    moved = []

    class Visitor(chainer.device_resident.DeviceResidentsVisitor):
        def visit_device_resident(self, resident):
            moved.append(resident)

        def visit_array(self, array):
            return array

        def visit_variable(self, param):
            moved.append(param)

    model.device_resident_accept(Visitor())
    assert any(one is parameter for one in moved)
    # Taken off.
    surgery.revert(model)
    assert extra not in dict(model.namedparams())
    assert all(not hasattr(type(link), 'surgery_base')
               for link in model.links())


@every_structure
def test_quantizers_of_weights_read_parameters_only(name):
    model, args = STRUCTURES[name]()
    run(model, args)
    state = everything(model)[1:4]
    with chainer.using_config('train', False):
        report = surgery.quantize(model, args)
    assert everything(model)[1:4] == state
    with chainer.using_config('train', False):
        for _ in range(2):
            for node in surgery.trace(model, *args):
                if (isinstance(node.link, surgery.FakeQuantize)
                        and node.link.ranges == 'current'):
                    assert node.inputs[0].is_parameter, node
                elif isinstance(node.link, surgery.FakeQuantize):
                    assert not node.inputs[0].is_parameter, node
            model(*args)
    assert len({one.layer for one in report}) == len(report) > 0


@every_structure
def test_folding_changes_no_output(name):
    model, args = STRUCTURES[name]()
    for _ in range(3):
        run(model, args, train=True)
    plain = twin(model)
    surgery.fold_batch_normalization(model, args)
    for _ in range(2):
        np.testing.assert_allclose(
            run(model, args), run(plain, args), rtol=1e-4, atol=1e-5)


METHODS = {
    'loss': [('predict', 1), ('encode', 1)],
    'methods': [('encode', 1), ('decode', 1)],
}


@pytest.mark.parametrize('name', METHODS)
def test_edits_act_in_every_public_method(name):
    model, args = STRUCTURES[name]()
    plain = twin(model)
    surgery.insert_after(model, '/ReLU', lambda h: 2 * h, x=args)
    model(*args)
    x = args[0]
    if name == 'loss':
        np.testing.assert_array_equal(
            model.encode(x).array, 2 * plain.encode(x).array)
        np.testing.assert_array_equal(
            model.predict(x).array,
            F.sigmoid(plain.l2(2 * plain.encode(x))).array)
    else:
        # The address is that of the encoder, not of the decoder.
        np.testing.assert_array_equal(
            model.encode(x).array, 2 * plain.encode(x).array)
        np.testing.assert_array_equal(
            model.decode(x).array, plain.decode(x).array)
        surgery.revert(model)
        surgery.insert_after(model, '/ReLU_1', lambda h: 3 * h, x=args)
        np.testing.assert_array_equal(
            model.encode(x).array, plain.encode(x).array)
        np.testing.assert_array_equal(
            model.decode(x).array, 3 * plain.decode(x).array)


def test_methods_of_parts_have_addresses_of_their_own():
    model, args = STRUCTURES['parts']()
    plain = twin(model)
    assert [node.address for node in surgery.trace(model, *args)] == [
        '/part/e/LinearFunction', '/part/ReLU', '/l/LinearFunction', '/Tanh',
        '/part/d/LinearFunction', '/part/ReLU_1']
    surgery.insert_after(model, '/part/ReLU', lambda h: 2 * h)
    z = 2 * plain.part.encode(args[0])
    np.testing.assert_array_equal(
        model(*args).array, plain.part.decode(F.tanh(plain.l(z))).array)
    np.testing.assert_array_equal(model.part.encode(args[0]).array, z.array)


def test_a_generator_of_the_author_runs_with_the_edits():
    class Beams(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l = L.Linear(6, 6)

        def search(self, x, n):
            for _ in range(n):
                x = F.relu(self.l(x))
                sent = yield x
                if sent is not None:
                    x = sent
            return 'done'

        def forward(self, x):
            return list(self.search(x, 1))[0]

    model, (x,) = Beams(), STRUCTURES['chain']()[1]
    plain = twin(model)
    surgery.insert_after(model, '/ReLU*', lambda h: 2 * h, x=x)
    steps = model.search(x, 2)
    first = next(steps)
    np.testing.assert_array_equal(
        first.array, 2 * F.relu(plain.l(x)).array)
    np.testing.assert_array_equal(
        steps.send(x).array, 2 * F.relu(plain.l(x)).array)
    with pytest.raises(StopIteration, match='done'):
        next(steps)


def test_a_method_in_several_places_says_so():
    class Siamese(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l = L.Linear(6, 6)

        def embed(self, x):
            return F.relu(self.l(x))

        def forward(self, x):
            return self.embed(x) - self.embed(-x)

    model, (x,) = Siamese(), STRUCTURES['chain']()[1]
    plain = twin(model)
    surgery.insert_after(model, '/ReLU', lambda h: 2 * h, x=x)
    model(x)
    with pytest.warns(UserWarning, match='embed.. runs in several places'):
        y = model.embed(x)
    np.testing.assert_array_equal(y.array, 2 * plain.embed(x).array)
    model.embed(x)  # Once.
    surgery.revert(model)
    surgery.insert_after(model, '/ReLU*', lambda h: 2 * h, x=x)
    model(x)
    model.embed(x)  # The same everywhere.


def test_a_method_that_trains_is_not_tried():
    """To try it would be to train twice."""
    class Fits(chainer.Chain):
        def __init__(self):
            super().__init__()
            self.n_fits = 0
            with self.init_scope():
                self.l = L.Linear(6, 6)

        def fit(self, x):
            self.n_fits += 1
            return F.sum(self(x))

        def forward(self, x):
            return F.relu(self.l(x))

    model, (x,) = Fits(), STRUCTURES['chain']()[1]
    y = F.sum(model(x)).array
    surgery.insert_after(model, '/ReLU', lambda h: 2 * h)
    np.testing.assert_allclose(model.fit(x).array, 2 * y, rtol=1e-6)
    assert model.n_fits == 1


def test_an_edited_model_pickles_with_its_methods():
    model, args = STRUCTURES['methods']()
    surgery.insert_after(model, '/ReLU_1', F.tanh, x=args)
    model(*args)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.decode(args[0]).array, model.decode(args[0]).array)
    assert not np.array_equal(
        again.decode(args[0]).array, F.relu(model.d(args[0])).array)


def test_what_the_containers_keep_is_seen_by_the_test():
    """The description tells a run from none: else nothing was tested."""
    model, args = STRUCTURES['containers']()
    before = everything(model)
    seen = KeepsAll.seen.copy()
    model(*args)
    assert everything(model) != before
    KeepsAll.seen.clear()
    KeepsAll.seen.update(seen)
