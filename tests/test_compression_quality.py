"""The benchmark of compression compares equals, and goes on when stopped."""
import argparse
import json

import numpy
import pytest
from idx import write_idx

from benchmarks import (
    compression_quality,
    compression_tables,
    scratch_peers,
    sharing_quality,
    small_networks,
)
from benchmarks.compression_quality import Job
from examples import compress_mnist
from shared_linear.compression.planning import Curve

SIZES = {'1000-900': [784, 1000, 900, 10],
         'lenet-300-100': [784, 300, 100, 10]}


@pytest.fixture
def data(tmp_path):
    """Images in which a row says the class."""
    folder = tmp_path / 'data'
    folder.mkdir()
    rng = numpy.random.RandomState(0)
    for split, n in ('train', 300), ('t10k', 60):
        labels = numpy.arange(n) % 10
        images = rng.randint(0, 90, (n, 28, 28))
        images[numpy.arange(n), 2 * labels + 3] += 120
        write_idx(folder / (split + '-images-idx3-ubyte'), images)
        write_idx(folder / (split + '-labels-idx1-ubyte'), labels)
    return folder


@pytest.fixture
def run(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(compress_mnist.NETWORKS, '1000-900', (24, 20))
    monkeypatch.setitem(compress_mnist.NETWORKS, 'lenet-300-100', (20, 12))
    monkeypatch.setattr(
        small_networks, 'QUANTIZED', ('lenet-300-100', 5, 20))
    monkeypatch.setattr(compression_quality, 'RATIOS', (2, 4))
    monkeypatch.setattr(small_networks, 'EPOCHS', 2)

    def run(*flags):
        compression_quality.main([
            '--data', str(data), '--runs', 'runs', '--out', 'out',
            '--calibration', '200', '--budgets', '5', '--seeds', '3',
            '--parts', 'networks', *flags])
        path = tmp_path / 'out' / 'compression_quality.json'
        return json.loads(path.read_text())['results']

    return run


@pytest.mark.slow
def test_every_way_is_compared_at_as_many_parameters(run, capsys):
    results = run('--networks', 'lenet-300-100')
    for network in results['networks']:
        rows = {row['way']: row for row in network['rows']}
        assert set(rows) == set(compression_quality.WAYS) - {'dense'}
        dense = network['dense parameters']
        for way, row in rows.items():
            if way == '8 bits':
                assert row['bytes'] <= 1 / 20
                continue
            # Small as it is, shapes of as many may not be there.
            at_most = 1.2 if way == 'mixed' else 1.
            assert row['parameters'] <= at_most * dense / 5, way
            assert 0 <= row['after'] <= 100
        for way in compression_quality.ENGINE:
            assert rows[way]['added'] == pytest.approx(next(
                result['before'] - network['dense before']
                for result in results['results']
                if (result['network'], result['way']) == (
                    network['network'], way)))
            assert rows[way]['measured / reported'] > 0
    printed = capsys.readouterr().out
    assert '| 1/5 | hashed |' in printed
    assert '| 1/5 | 8 bits |' in printed


def test_it_goes_on_where_it_was_and_reports_what_is_there(
        run, tmp_path, monkeypatch):
    flags = '--networks', 'lenet-300-100', '--ways', 'dense', 'narrow'
    assert run(*flags, '--report')['networks'] == []
    assert not list((tmp_path / 'runs').iterdir())
    first = run(*flags)
    kept = sorted((tmp_path / 'runs').iterdir())
    assert [path.suffix for path in kept] == ['.npz', '.json', '.json']

    results = []
    result = small_networks.Trained.result
    monkeypatch.setattr(
        small_networks.Trained, 'result',
        lambda self, job: results.append(job) or result(self, job))
    lost = next(path for path in kept if 'narrow' in path.name)
    lost.unlink()
    again = run(*flags)
    assert results == [Job('lenet-300-100', 3, 5, 'narrow')]
    for written in first, again:
        for row in written['networks'][0]['rows'] + written['results']:
            row.pop('cpu_seconds', None)
    assert again == first
    for what in 'parameters', 'operations':
        path = tmp_path / 'out' / 'compression_quality_{}.png'.format(what)
        assert path.read_bytes().startswith(b'\x89PNG')


@pytest.mark.slow
def test_processes_share_the_work(data, tmp_path, monkeypatch, capfd):
    reports = []
    monkeypatch.setattr(
        compression_tables, 'report',
        lambda args, script, results, facts: reports.append(results))
    for runs, processes in ('one', '1'), ('two', '2'):
        compression_quality.main([
            '--data', str(data), '--runs', str(tmp_path / runs),
            '--networks', 'lenet-300-100', '--ways', 'narrow', 'hashed',
            '--budgets', '15', '--seeds', '3', '--parts', 'networks',
            '--processes', processes])
        assert capfd.readouterr().out.count('narrow {') == 1
    one, two = reports
    assert len(one) == 2
    for result in *one.values(), *two.values():
        del result['cpu_seconds']
    assert two == one


def test_pieces_are_all_jobs_once():
    args = argparse.Namespace(
        seeds=[0, 1, 2], networks=['1000-900', 'lenet-300-100'],
        parts=compression_quality.PARTS, ways=compression_quality.WAYS,
        budgets=compression_quality.BUDGETS)
    jobs = list(compression_quality.jobs(args))
    # Dense, eight ways and five budgets, 8 bits; three ways and six ratios.
    assert len(jobs) == 3 * (2 * (1 + 8 * 5) + 1 + 3 * 6)
    pieces = compression_quality.pieces(jobs)
    assert sorted(job for piece in pieces for job in piece) == sorted(jobs)
    assert [piece[0].way for piece in pieces[:6]] == ['dense'] * 6
    for piece in pieces:
        # One network, whose measurement all of a piece share.
        assert len({(job.network, job.seed) for job in piece}) == 1


def test_validation_counts_no_errors_on_test_digits(run, monkeypatch):
    monkeypatch.setattr(small_networks, 'N_VALIDATION', 50)
    flags = '--networks', 'lenet-300-100', '--ways', 'dense'
    tested = run(*flags)
    validated = run(*flags, '--validate')
    assert (tested['digits'], validated['digits']) == (300, 250)
    assert tested['checksum'] != validated['checksum']


@pytest.mark.slow
def test_one_layer_alone_keeps_the_others(run, capsys):
    rows = run('--parts', 'layer')['layer']
    assert {(row['ratio'], row['way']) for row in rows} == {
        (ratio, way) for ratio in (2, 4)
        for way in compression_quality.LAYER_WAYS}
    for row in rows:
        (first, layer, last), = row['layers']
        assert (first, last) == ([1, None, 784], [1, None, 20])
        n_tiles, rank, width = layer
        weights = 24 // n_tiles * 20 if rank is None else rank * (
            24 // n_tiles + 20)
        assert weights <= 24 * 20 / row['ratio']
        assert width == 24
        if row['way'] == 'tiles':
            assert rank is None
        if row['way'] == 'low rank':
            assert n_tiles == 1
    assert '| 1/4 |' in capsys.readouterr().out


def test_ways_have_the_forms_of_their_names():
    errors = numpy.array([1., .5, .2, .1])
    curves = {path: [
        Curve(1, None, 6, errors), Curve(2, None, 3, errors),
        Curve(1, 3, 3, errors)] for path in ('/a', '/b')}

    def shown(curves):
        return [(c.n_tiles, c.n_units, len(c.errors) - 1) for c in curves]

    # Tiles, units, and how many ranks below the full one.
    expected = {
        'together': [(1, None, 3), (2, None, 3), (1, 3, 3)],
        'tiles': [(1, None, 0), (2, None, 0)],
        'low rank': [(1, None, 3)],
        'units': [(1, None, 0), (1, 3, 0)],
    }
    for way, forms in expected.items():
        chosen = small_networks.forms(curves, way)
        assert shown(chosen['/a']) == shown(chosen['/b']) == forms
        assert all(c.errors[-1] == .1 for c in chosen['/a'])
        # Of one layer alone: no fewer units, and the other one is dense.
        alone = small_networks.forms_of_layer(curves, way, '/b')
        assert shown(alone['/a']) == [(1, None, 0)]
        assert shown(alone['/b']) == [f for f in forms if f[1] is None]


@pytest.mark.parametrize('budget', compression_quality.BUDGETS)
@pytest.mark.parametrize('name', SIZES)
def test_peers_have_as_many_parameters(name, budget):
    sizes = SIZES[name]
    dense = sum((i + 1) * o for i, o in zip(sizes, sizes[1:], strict=False))
    for kind in scratch_peers.KINDS:
        layers = scratch_peers.plan(kind, sizes, dense // budget)
        count = sharing_quality.parameters(layers)
        assert count == pytest.approx(dense / budget, rel=.03), kind
        network = sharing_quality.Network(layers, seed=0)
        assert sum(p.size for p in network.params()) == count


def test_operations_of_peers_by_hand():
    narrow, hashed, mixed = (
        scratch_peers.operations(scratch_peers.plan(
            kind, [784, 300, 100, 10], 266610 // 15))
        for kind in scratch_peers.KINDS)
    assert narrow == 2 * (784 * 21 + 21 * 39 + 39 * 10)
    assert hashed == 2 * (784 * 300 + 300 * 100 + 100 * 10)
    # (n, k): (8, 2), (12, 1), (10, 2).
    assert mixed == 2 * (98 * 300 + 25 * 100 + 10 * 10) + (
        2 * (784 - 98) + 275 + 2 * 90)


def test_being_worse_than_a_peer_is_said(capsys):
    def row(way, after, **more):
        return {'budget': 5, 'way': way, 'after': after, 'seeds': [0], **more}

    compression_tables.print_against_peers({'rows': [
        row('together', 1.56, **{'measured / reported': 1.4}),
        row('narrow', 1.5), row('tiles', 1.4), row('tuned', 1.54),
        row('hashed', 1.0) | {'seeds': [1]}]})
    assert capsys.readouterr().out.splitlines()[-2:] == [
        '| 1/5 | together | 1.56 | tiles: 1.40 | +0.16 | +0.05 | NO | NO |',
        '| 1/5 | tuned | 1.54 | narrow: 1.50 | +0.04 | +0.05 | yes |  |']
