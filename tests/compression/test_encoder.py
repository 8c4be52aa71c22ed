"""sl.compress: an encoder of sentences of different lengths, with padding."""
import numpy
import pytest

import shared_linear as sl
from benchmarks import minilm
from shared_linear.compression import between, capture
from shared_linear.compression.compress import hold_out
from shared_linear.compression.inputs import Batch
from shared_linear.compression.pipeline import Compression

import chainer  # isort: skip

pytest.importorskip('scipy', reason='GELU is slow without, as Chainer warns')

LENGTHS = 4, 6, 9, 12
N_WORDS = 50


def encoder(seed=0):
    numpy.random.seed(seed)
    model = minilm.SentenceEncoder(16, 48, 2, 2, N_WORDS, 16)
    for name, parameter in model.namedparams():
        if name.endswith('/b'):
            parameter.array[...] = numpy.random.normal(size=parameter.shape)
    return model


def sentences(lengths=LENGTHS, count=30, seed=0, padding=0):
    """Batches of token ids; some end in padding."""
    rng = numpy.random.RandomState(seed)
    batches = []
    for length in lengths:
        ids = rng.randint(1, N_WORDS, (count, length))
        ends = rng.randint(length // 2, length + 1, count)
        ids[numpy.arange(length) >= ends[:, None]] = minilm.PAD
        ids = numpy.pad(ids, ((0, 0), (0, padding)))
        batches.append(ids.astype(numpy.int32))
    return batches


def embed(model, batches):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return numpy.concatenate([model(batch).array for batch in batches])


def cosine(model, new, batches):
    return (embed(model, batches) * embed(new, batches)).sum(1).mean()


def test_what_feeds_what():
    model, batches = encoder(), [Batch([ids]) for ids in sentences()]
    with capture.same_random_numbers(model) as wind_back:
        work = Compression(
            model, batches, None, hold_out(batches), (), wind_back, 0)
    assert list(work.layers) == [
        '/blocks/{}/{}'.format(i, name) for i in range(2) for name in (
            'attention/query', 'attention/key', 'attention/value',
            'attention/out', 'wide', 'narrow')]
    # GELU is made of several functions, and does not scale.
    assert work.pairs == {
        '/blocks/{}/narrow'.format(i): between.Pair(
            '/blocks/{}/wide'.format(i), False, True) for i in range(2)}
    assert between.find_skips(work.recorded, work.layers) == {
        '/blocks/{}/{}'.format(i, name): between.Skip(
            '/blocks/{}/{}'.format(i, before), 0) for i in range(2)
        for name, before in (
            ('attention/out', 'attention/query'), ('narrow', 'wide'))}


@pytest.mark.parametrize('of', ['parameters', 'operations'])
def test_it_is_compressed(of):
    model, other = encoder(), sentences(seed=1)
    new, report = sl.compress(
        model, iter(sentences()), .75, of=of, mask=minilm.is_token)
    assert cosine(model, new, other) > .95
    small, _ = sl.compress(
        model, iter(sentences()), .6, of=of, mask=minilm.is_token)
    assert cosine(model, small, other) < cosine(model, new, other)
    assert report.unreachable == sum(
        parameter.size for link in model.links() if not isinstance(
            link, chainer.links.Linear)
        for parameter in link.params(include_uninit=False)
        if not list(link.children()))


def test_operations_are_those_of_all_batches():
    """Not those of the first, be it that of the shortest sentences."""
    model, batches = encoder(), sentences()
    new, report = sl.compress(
        model, iter(batches), .5, of='operations',
        exclude='/blocks/*/attention/*', mask=minilm.is_token)
    # Each layer is applied to each token.
    each = numpy.mean([batch.shape[1] for batch in batches])
    dense = each * 2 * 2 * (4 * 16 * 16 + 2 * 16 * 48)
    assert report.dense_flops == pytest.approx(dense)
    assert .4 * dense < report.flops <= .5 * dense


def test_memory_does_not_depend_on_the_order_of_batches():
    needs = [
        sl.compress(
            encoder(), iter(batches), .9, exclude='/blocks/*/attention/*'
        )[1].memory
        for batches in (sentences(), sentences(LENGTHS[::-1]))]
    # What waits is known of a few inputs, at as many bytes a row.
    assert needs[0] == pytest.approx(needs[1], rel=.05)


def test_padding_says_nothing():
    model, other = encoder(), sentences(seed=1)
    first, second, unmasked = (
        sl.compress(
            model, iter(sentences(padding=padding)), .8, mask=mask,
            exclude='/blocks/*/attention/*', n_sweeps=1)[0]
        for padding, mask in (
            (0, minilm.is_token), (4, minilm.is_token), (4, None)))
    y = embed(first, other)
    rounding = abs(y - embed(second, other)).max()
    assert rounding < .1 * abs(y - embed(unmasked, other)).max()


def test_what_cannot_be_reached():
    with pytest.raises(ValueError, match=(
            'the smallest that can is .*: /words 800, /positions 256')):
        sl.compress(encoder(), iter(sentences()), .1)


def test_what_cannot_be_compressed_takes_8_bits_as_well():
    model = encoder()

    def compress(budget):
        return sl.compress(
            model, iter(sentences()), budget, of='bytes', n_sweeps=1,
            exclude='/blocks/*/attention/*', mask=minilm.is_token)

    with pytest.raises(ValueError, match='the smallest that can is') as info:
        compress(.01)
    smallest = float(
        str(info.value).split('smallest that can is ')[1].split(', ')[0])
    new, report = compress(smallest)
    arrays = [parameter.array for parameter in new.params()]
    assert report.n_bits == 8 and report.bytes == sum(
        array.size + 4 * len(array) if array.ndim > 1 else array.nbytes
        for array in arrays)
    whole = sum(parameter.array.nbytes for parameter in model.params())
    assert report.dense_bytes == whole
    assert smallest * whole - 50 < report.bytes <= smallest * whole
    assert cosine(model, compress(.4)[0], sentences(seed=1)) > .999
