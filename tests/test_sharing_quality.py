"""The benchmark of mixed sharing compares equals, and goes on when killed."""
import json

import numpy
import pytest
from idx import write_idx

from benchmarks import sharing_quality
from benchmarks.sharing_quality import Method, Network, narrower, plan

MNIST = {
    name: [784, *hidden, 10]
    for name, (hidden, _) in sharing_quality.NETWORKS.items()}


@pytest.fixture
def data(tmp_path):
    """Images of 6 x 6, of twelve classes."""
    folder = tmp_path / 'data'
    folder.mkdir()
    for split, n in ('train', 240), ('t10k', 60):
        labels = numpy.arange(n) % 12
        images = numpy.random.randint(0, 60, (n, 36))
        images[numpy.arange(n), 3 * labels] = 255
        write_idx(folder / (split + '-images-idx3-ubyte'),
                  images.reshape(n, 6, 6))
        write_idx(folder / (split + '-labels-idx1-ubyte'), labels)
    return folder


def run(tmp_path, data, monkeypatch, *flags):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        sharing_quality.NETWORKS, 'lenet-300-100', ((300, 100), (1, 2)))
    out = tmp_path / 'out'
    sharing_quality.main([
        '--data', str(data), '--runs', 'runs', '--out', str(out),
        '--networks', 'lenet-300-100', '--compressions', '8',
        '--seeds', '2', '--seconds', '0', *flags])
    written = json.loads((out / 'sharing_quality.json').read_text())
    comparison, = written['results']['comparisons']
    return {row['method']: row for row in comparison['rows']}, comparison


@pytest.mark.slow
def test_it_runs_on_any_data_and_goes_on(
        tmp_path, data, monkeypatch, capsys):
    rows, comparison = run(tmp_path, data, monkeypatch)
    for name in ('dense', 'dense, narrower', 'HashedNets', 'tiles',
                 'tiles, order', 'mixed (4, 2)', 'mixed (4, 2), order'):
        assert len(rows[name]['test errors']) == 2
        first, *_, last = rows[name]['layers']
        assert first['in_size'] == 36
        assert last['out_size'] == 12
    assert {claim['mixed'] for claim in comparison['claims']} == {
        'at random', 'best'}
    for what in 'parameters', 'multiply_adds':
        path = tmp_path / 'out' / 'sharing_quality_{}.png'.format(what)
        assert path.read_bytes().startswith(b'\x89PNG')
    assert 'mixed (4, 2), order' in capsys.readouterr().out

    # A run that was lost is made again, and no other.
    kept = sorted((tmp_path / 'runs').iterdir())
    assert {path.suffix for path in kept} == {'.json'}
    lost = next(p for p in kept if 'HashedNets-test' in p.name)
    before = lost.read_text()
    lost.unlink()
    trained = []
    train = sharing_quality.train
    monkeypatch.setattr(
        sharing_quality, 'train',
        lambda *args: trained.append(train(*args)))
    again, _ = run(tmp_path, data, monkeypatch)
    for row in (*rows.values(), *again.values()):
        assert row.pop('forward seconds')['median'] > 0
    assert again == rows
    assert len(trained) == 1
    without_seconds = [
        {key: value for key, value in json.loads(text).items()
         if key != 'seconds'} for text in (before, lost.read_text())]
    assert without_seconds[0] == without_seconds[1]


def test_report_trains_nothing(tmp_path, data, monkeypatch):
    rows, comparison = run(tmp_path, data, monkeypatch, '--report')
    assert not list((tmp_path / 'runs').iterdir())
    assert rows['HashedNets']['mean'] is None
    assert comparison['claims'] == []


def test_missing_data_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match='nowhere: no such folder$'):
        run(tmp_path, tmp_path / 'nowhere', monkeypatch)


@pytest.mark.parametrize('compression', [8, 64])
@pytest.mark.parametrize('name', MNIST)
def test_mixed_has_as_many_parameters_as_hashed(name, compression):
    sizes = MNIST[name]
    hashed = plan(Method('hashed'), sizes, compression)
    weights = sum(layer.n_weights for layer in hashed)
    dense = sum(i * o for i, o in zip(sizes, sizes[1:], strict=False))
    assert weights == pytest.approx(dense / compression, rel=1e-3)
    for shape in sharing_quality.SHAPES[compression]:
        layers = plan(Method('mixed', shape), sizes, compression)
        network = Network(layers, seed=0)
        assert sum(p.size for p in network.params()) == pytest.approx(
            sharing_quality.parameters(hashed), rel=.01)
        for layer in layers:
            assert layer.in_size % layer.n_tiles == 0
            assert layer.out_size % layer.n_blocks == 0


def test_costs_by_hand():
    dense, hashed, mixed = (
        plan(Method(kind, (4, 2)), [784, 1000, 10], 8)
        for kind in ('dense', 'hashed', 'mixed'))
    assert sum(layer.multiply_adds for layer in dense) == 794_000
    assert sum(layer.multiply_adds for layer in hashed) == 794_000
    assert [layer[3:5] for layer in mixed] == [(4, 2), (4, 2)]
    assert [layer.multiply_adds for layer in mixed] == [196_000, 2_500]
    assert [layer.additions for layer in mixed] == [1568, 2000]
    assert [layer.parameters for layer in mixed] == [
        196 * 500 + 1000, 250 * 5 + 10]


@pytest.mark.parametrize(('sizes', 'n_parameters', 'widths'), [
    # 784 * 126 + 126 + 126 * 10 + 10 = 100,180
    ([784, 1000, 10], 100_260, [126, 10]),
    # 784 * 5 + 5 + 5 * 40 + 40 + 40 * 10 + 10 = 4,575
    ([784, 300, 100, 10], 4575, [5, 40, 10]),
    ([784, 300, 100, 10], 4574, [5, 39, 10]),
])
def test_narrower_network_has_as_many_parameters(
        sizes, n_parameters, widths):
    layers = narrower(sizes, n_parameters)
    assert [layer.out_size for layer in layers] == widths


def test_seeds_and_layers_mix_differently():
    layers = plan(Method('mixed', (8, 8)), MNIST['1000-1000-1000'], 64)
    seeds = [link.seed for seed in range(3) for link in Network(layers, seed)]
    assert len(set(seeds)) == len(seeds)
