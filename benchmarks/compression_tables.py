"""Tables and plots of compression_quality.py, with what was aimed at."""
from __future__ import annotations

import statistics

from benchmarks import harness, scratch_peers, sharing_quality

# Points of error added without training, and error after an epoch, at most.
AIMS = {('1000-900', 15): (.05, 1.45), ('1000-900', 31): (.35, 1.62),
        ('1000-900', 54): (1.4, 2.40)}
# Error after six epochs, and after one more in 8 bits, at most.
TUNED_AIMS = {('lenet-300-100', 15, 'tuned'): 1.60,
              ('lenet-300-100', 15, '8 bits'): 1.65}
# A difference in error that is noise.
NOISE = .05
# How far the error that is reported may be from that on other inputs.
HONEST = 1.3
PEERS = 'tiles', 'low rank', 'units', *scratch_peers.KINDS
STYLES = {
    'together': ('tab:green', '*', 'together: sl.compress'),
    'tuned': ('tab:green', 'x', 'together, six epochs'),
    'tiles': ('tab:olive', '^', 'tiles alone'),
    'low rank': ('tab:blue', 'v', 'low rank alone, data-aware'),
    'units': ('tab:purple', 's', 'hidden units alone, with refit'),
    'narrow': ('tab:gray', 'D', 'narrow, from scratch'),
    'hashed': ('tab:red', 'o', 'HashedNets, from scratch'),
    'mixed': ('tab:orange', 'P', 'mixed, from scratch'),
}


def report(args, script, results, facts):
    """Prints what is there; writes it as JSON, and draws it."""
    refused = [job for job, result in results.items() if 'refused' in result]
    results = {job: result for job, result in results.items()
               if job not in refused}
    networks = [
        network for name in dict.fromkeys(job.network for job in results)
        for network in [summarize(name, results)] if network['rows']]
    for network in networks:
        network['too small'] = sorted({
            (job.budget, job.way) for job in refused
            if job.network == network['network']})
    layer = summarize_layer(results)
    for network in networks:
        print_overview(network)
        print_network(network)
        print_against_peers(network)
        print_tuned(network)
    if layer:
        print_layer(layer)
    print('\nwritten: {}'.format(harness.save(args, script, facts | {
        'networks': networks, 'layer': layer,
        'results': [job._asdict() | result
                    for job, result in results.items()]})))
    for what in 'parameters', 'operations':
        if networks:
            path = harness.plot_path(args, script)
            path = path.with_stem('{}_{}'.format(path.stem, what))
            plot(networks, what, path)
            print('written: {}'.format(path))


def summarize(name, results):
    """Means over the seeds of a network."""
    by_row = {}
    denses = {}
    for job, result in results.items():
        if job.network == name and not job.layer:
            if job.way == 'dense':
                denses[job.seed] = result
            else:
                by_row.setdefault((job.budget, job.way), {})[
                    job.seed] = result
    network = {'network': name, 'rows': [
        summarize_row(runs, denses) | {'budget': budget, 'way': way}
        for (budget, way), runs in sorted(
            by_row.items(), key=lambda item: item[0][0])]}
    for key in 'parameters', 'before', 'after', 'tuned':
        if denses:
            network['dense ' + key] = statistics.mean(
                dense[key] for dense in denses.values())
    return network


def summarize_row(runs, denses):
    row = {'seeds': sorted(runs)}
    for key in ('parameters', 'operations', 'bytes', 'after', 'six_epochs',
                'reported', 'measured', 'cpu_seconds'):
        if all(key in run for run in runs.values()):
            row[key] = statistics.mean(run[key] for run in runs.values())
    after = [run['after'] for run in runs.values()]
    row['spread'] = statistics.stdev(after) if after[1:] else 0.
    if all('reported' in run for run in runs.values()):
        row['measured / reported'] = statistics.mean(
            run['measured'] / run['reported'] for run in runs.values())
        if set(runs) <= set(denses):
            row['added'] = statistics.mean(
                run['before'] - denses[seed]['before']
                for seed, run in runs.items())
    return row


def summarize_layer(results):
    by_row = {}
    for job, result in results.items():
        if job.layer:
            by_row.setdefault((job.budget, job.way), {})[job.seed] = result
    return [{
        'ratio': ratio, 'way': way, 'seeds': sorted(runs),
        'added': statistics.mean(
            run['before'] - run['dense'] for run in runs.values()),
        'reported': statistics.mean(
            run['reported'] for run in runs.values()),
        'measured': statistics.mean(
            run['measured'] for run in runs.values()),
        'layers': [run['layers'] for run in runs.values()],
    } for (ratio, way), runs in by_row.items()]


def number(row, key, form='{:.2f}'):
    return '' if row is None or row.get(key) is None else form.format(
        row[key])


def fewer(row, key):
    """How many times less of it there is."""
    return '' if key not in row else '1/{:.1f}'.format(1 / row[key])


def at_most(aim, form='{:.2f}'):
    return '' if aim is None else form.format(aim)


def print_overview(network):
    """A line for each way: points added, then error in %."""
    title = network['network']
    if 'dense before' in network:
        title += (
            ': dense {0[dense before]:.2f} %, after one more epoch '
            '{0[dense after]:.2f} %, after six {0[dense tuned]:.2f} %'.format(
                network))
    print('\n{}\n'.format(title))
    rows = {(row['budget'], row['way']): row for row in network['rows']}
    budgets = sorted({budget for budget, _ in rows})
    table = []
    for way, (_, _, label) in STYLES.items():
        cells = []
        for budget in budgets:
            row = rows.get((budget, way))
            if (budget, way) in network['too small']:
                cells.append('cannot be that small')
                continue
            added = '' if way == 'tuned' else number(row, 'added', '{:+.2f}, ')
            cells.append(added + number(row, 'after'))
        if any(cells):
            table.append([label, *cells])
    harness.print_markdown(
        ['', *('1/{}'.format(budget) for budget in budgets)], table)
    print()


def print_network(network):
    table = []
    for row in network['rows']:
        aims = None, None
        if row['way'] == 'together':
            aims = AIMS.get((network['network'], row['budget']), aims)
        if row['way'] in ('tuned', '8 bits'):
            continue
        table.append([
            '1/{}'.format(row['budget']), row['way'],
            number(row, 'parameters', '{:,.0f}'), fewer(row, 'operations'),
            number(row, 'added', '{:+.2f}'), at_most(aims[0], '{:+.2f}'),
            '{0[after]:.2f} ± {0[spread]:.2f}'.format(row), at_most(aims[1]),
            number(row, 'measured / reported'), str(len(row['seeds']))])
    harness.print_markdown(
        ['budget', 'way', 'parameters', 'operations', 'points added',
         'at most', 'after an epoch (from scratch: six)', 'at most',
         'measured / reported', 'seeds'], table)


def print_against_peers(network):
    """Whether it is at or below every peer at each budget.

    After an epoch beside all; and after six beside those that have six.
    """
    rows = {(row['budget'], row['way']): row for row in network['rows']}
    table = []
    for budget in sorted({budget for budget, _ in rows}):
        for way, others in (
                ('together', PEERS), ('tuned', scratch_peers.KINDS)):
            ours = rows.get((budget, way))
            # Of the same seeds only.
            peers = [rows[budget, other] for other in others
                     if ours and (budget, other) in rows
                     and rows[budget, other]['seeds'] == ours['seeds']]
            if not peers:
                continue
            best = min(peers, key=lambda row: row['after'])
            worse = ours['after'] - best['after']
            table.append([
                '1/{}'.format(budget), way, number(ours, 'after'),
                '{}: {:.2f}'.format(best['way'], best['after']),
                '{:+.2f}'.format(worse), '{:+.2f}'.format(NOISE),
                'yes' if worse <= NOISE else 'NO',
                '' if 'measured / reported' not in ours else
                'yes' if 1 / HONEST <= ours['measured / reported'] <= HONEST
                else 'NO'])
    if table:
        print()
        harness.print_markdown(
            ['budget', '', 'error', 'best of the others', 'more by',
             'at most', 'at or below',
             'reported error within {} times'.format(HONEST)], table)


def print_tuned(network):
    rows = [row for row in network['rows']
            if row['way'] in ('tuned', '8 bits')]
    if not rows:
        return
    print()
    harness.print_markdown(
        ['budget', 'way', 'parameters', 'bytes', 'after six epochs',
         'after the last', 'at most', 'seeds'],
        [['1/{}'.format(row['budget']), row['way'],
          number(row, 'parameters', '{:,.0f}'), fewer(row, 'bytes'),
          number(row, 'six_epochs'),
          '{0[after]:.2f} ± {0[spread]:.2f}'.format(row),
          at_most(TUNED_AIMS.get((
              network['network'], row['budget'], row['way']))),
          str(len(row['seeds']))] for row in rows])


def print_layer(rows):
    print('\n1000 -> 900 of 784-1000-900-10 alone, without training: points '
          'of error added, and error of its outputs in units of their '
          'variance, on other inputs and as reported\n')
    by = {(row['ratio'], row['way']): row for row in rows}
    ways = list(dict.fromkeys(row['way'] for row in rows))
    table = []
    for ratio in dict.fromkeys(row['ratio'] for row in rows):
        here = [by.get((ratio, way)) for way in ways]
        others = [row['added'] for row in here
                  if row and row['way'] != 'together']
        ours = by.get((ratio, 'together'))
        table.append([
            '1/{}'.format(ratio),
            *(number(row, 'added', '{:+.2f}') for row in here),
            *(number(row, 'measured', '{:.4f}') for row in here),
            *(number(row, 'reported', '{:.4f}') for row in here),
            '' if not (others and ours) else
            'yes' if ours['added'] <= min(others) + NOISE else 'NO',
            str(len(ours['seeds'] if ours else here[0]['seeds']))])
    harness.print_markdown(
        ['ratio', *('{}: added'.format(way) for way in ways),
         *('{}: error'.format(way) for way in ways),
         *('{}: reported'.format(way) for way in ways),
         'at or below', 'seeds'], table)


def plot(networks, what, path):
    """Error against what is left; the dense network is the line below."""
    figure, axes = harness.new_figure(len(networks))
    handles = {}
    for axis, network in zip(axes[0], networks, strict=True):
        for way, (color, marker, label) in STYLES.items():
            rows = [row for row in network['rows'] if row['way'] == way]
            if not rows:
                continue
            whole = 1. if what == 'operations' else network.get(
                'dense parameters', 1.)
            handles[label] = axis.errorbar(
                [row[what] / whole for row in rows],
                [row['after'] for row in rows],
                [row['spread'] for row in rows], color=color, marker=marker,
                markersize=9 if marker == '*' else 5, linewidth=1,
                linestyle='--' if way == 'tuned' else '-', capsize=2)
        for key, line, label in (
                ('dense after', ':', 'dense, after one more epoch'),
                ('dense tuned', '--', 'dense, after six more')):
            if key in network:
                handles[label] = axis.axhline(
                    network[key], color='k', ls=line, lw=1)
        axis.set_title('784-{}-10'.format(
            network['network'].replace('lenet-', '')))
        axis.set_xlabel('part of the {} that is left'.format(what))
        sharing_quality.scale_axes(axis)
        scale_parts(axis)
    axes[0, 0].set_ylabel('test error in %, after training')
    figure.legend(
        handles.values(), handles, loc='outside lower center', ncols=3)
    figure.savefig(path, dpi=120)


def scale_parts(axis):
    from matplotlib import ticker
    parts = [n for n in (1, 2, 5, 15, 30, 60)
             if axis.get_xlim()[0] <= 1 / n <= axis.get_xlim()[1]]
    axis.xaxis.set_major_locator(ticker.FixedLocator([1 / n for n in parts]))
    axis.xaxis.set_major_formatter(ticker.FixedFormatter(
        ['1' if n == 1 else '1/{}'.format(n) for n in parts]))
