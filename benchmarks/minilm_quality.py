"""What a sentence encoder loses by being made smaller, whichever way.

all-MiniLM-L6-v2 (minilm.py), without labels or training, by the docstrings of
Python's standard library: the mean cosine of the embeddings of other modules'
docstrings to the original's. Budgets are of the parameters of the layers that
may change: the 12 feed-forward layers of its six blocks, or all 36 of its
layers.

  together   sl.compress: tiles, rank and fewer hidden units, whichever loses
             least
  tiles      folds alone, as sl.share_weights has them
  low rank   data-aware low rank alone, as SVD-LLM and DRONE have it
  units      hidden units chosen by forward selection, with refit
  8 bits     as many parameters, but in a quarter of the bytes: all weights by
             surgery.quantize

The others have the same targets, the same held-out sentences and the same
choice of how to spend the budget over the layers.

  whole      one call of sl.compress for all 36 layers, as a user makes it, in
             a process of its own: seconds, and memory
"""
import ast
import copy
import json
import os
import resource
import subprocess
import sys
import sysconfig
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness  # noqa: E402  isort: skip

import numpy  # noqa: E402

import shared_linear as sl  # noqa: E402
from benchmarks import minilm  # noqa: E402
from benchmarks.compress_cost import resident  # noqa: E402
from benchmarks.small_networks import forms  # noqa: E402
from shared_linear import surgery  # noqa: E402
from shared_linear.compression import capture  # noqa: E402
from shared_linear.compression.compress import hold_out  # noqa: E402
from shared_linear.compression.inputs import Batch  # noqa: E402
from shared_linear.compression.pipeline import Compression  # noqa: E402

import chainer  # noqa: E402  isort: skip

WAYS = 'together', 'tiles', 'low rank', 'units', '8 bits', 'whole'
BUDGETS = 2, 4, 8
# The paths of the layers that stay, where not all may change.
ATTENTION = '/blocks/*/attention/*'
BATCH_SIZE = 100
# Mean cosine at least, of the feed-forward layers at 1/4; seconds at most.
LEAST_COSINE = .87
MOST_SECONDS = 900
# Of the searches for tiles, which would take most of the time.
N_SWEEPS = 8
NOT_TEXT = {'site-packages', 'test', 'tests', 'idle_test'}
SENTENCES = [
    'Return the sum of two numbers.', 'No.', 'What is the capital of France?',
    'A longer sentence, which says little, but has words like tokenization.']


def docstrings():
    """Of the standard library, each once, with the module it is of."""
    texts = {}
    folder = Path(sysconfig.get_path('stdlib'))
    for path in sorted(folder.rglob('*.py')):
        parts = path.relative_to(folder).parts
        if NOT_TEXT.intersection(parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef,
                                 ast.AsyncFunctionDef)):
                text = ' '.join((ast.get_docstring(node) or '').split())
                if text:
                    texts.setdefault(text, parts[0])
    return texts


def choose(texts, count, others, seed):
    """Docstrings for the calibration, and of other modules for the test.

    Modules are told apart by a checksum of their names. What this file was
    written by were those with 1, and are not used.
    """
    rng = numpy.random.RandomState(seed)
    chosen = []
    for part, number in ((range(2, 10), count), ([0], others)):
        some = [text for text, module in texts.items()
                if zlib.crc32(module.encode()) % 10 in part]
        chosen.append([some[i] for i in rng.permutation(len(some))[:number]])
    return chosen


def batches_of(texts):
    """Batches of token ids, padded to the longest of each."""
    encoded = minilm.load_tokenizer().encode_batch(texts)
    ids = sorted((one.ids for one in encoded), key=len)
    batches = []
    for start in range(0, len(ids), BATCH_SIZE):
        some = ids[start:start + BATCH_SIZE]
        batch = numpy.full(
            (len(some), len(some[-1])), minilm.PAD, numpy.int32)
        for row, one in zip(batch, some, strict=True):
            row[:len(one)] = one
        batches.append(batch)
    return batches


def embed(model, batches):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return numpy.concatenate([model(batch).array for batch in batches])


def check(model):
    """The encoder is the one of PyTorch, where that is installed."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        print('not checked: sentence-transformers is not installed')
        return None
    expected = SentenceTransformer(
        str(minilm.folder()), device='cpu').encode(SENTENCES)
    lengths = [len(one.ids) for one in
               minilm.load_tokenizer().encode_batch(SENTENCES)]
    # Batches come sorted by length.
    actual = embed(model, batches_of(SENTENCES))
    expected = expected[numpy.argsort(lengths, kind='stable')]
    harness.check_close(actual, expected, 'the encoder', 1e-5)
    return float(abs(actual - expected).max())


def part_of_model(model, part, exclude):
    """The budget of the model that leaves a part of its open layers."""
    whole = sum(parameter.size for parameter in model.params())
    layers = sum(
        link.W.size + link.b.size for path, link in model.namedlinks()
        if isinstance(link, chainer.links.Linear)
        and not (exclude and '/attention/' in path))
    return 1 - (1 - part) * layers / whole


class Measured:
    """What the engine knows of the encoder, for all budgets and ways."""

    def __init__(self, model, batches, exclude):
        self._model = model
        self._batches = batches
        self._exclude = exclude
        self._work = None

    def compress(self, budget, way):
        if self._work is None:
            with capture.same_random_numbers(self._model) as wind_back:
                batches = [Batch([batch]) for batch in self._batches]
                self._work = Compression(
                    self._model, batches,
                    [minilm.is_token(batch) for batch in self._batches],
                    hold_out(batches), self._exclude, wind_back, 0, N_SWEEPS)
                self._curves = self._work.measure()
        return self._work.compress(
            forms(self._curves, way), budget, 'parameters')


def likeness(y, z):
    """Of embeddings z to those of the original, y."""
    cosines = (y * z).sum(1)
    error = ((y - z).astype(float) ** 2).sum() / (
        (y - y.mean(0)).astype(float) ** 2).sum()
    return {
        'cosine': float(cosines.mean()),
        'tenth': float(numpy.quantile(cosines, .1)),
        'error': float(error)}


def row_of(report, y, z):
    open_layers = [layer for layer in report.layers if not layer.note]
    return {
        **likeness(y, z),
        'reported': report.error,
        'parameters': sum(layer.parameters for layer in open_layers),
        'dense_parameters': sum(
            layer.dense_parameters for layer in open_layers),
        'flops': report.flops / report.dense_flops,
        'layers': [
            [layer.path, layer.n_tiles, layer.rank, layer.inputs,
             layer.outputs] for layer in open_layers]}


def measure_8_bits(model, batches, test, y):
    new = copy.deepcopy(model)
    surgery.quantize(new, batches[:4])
    sizes = [
        (p.array.nbytes, p.size + 4 * len(p.array) if p.ndim > 1
         else p.array.nbytes) for p in model.params()]
    before, after = map(sum, zip(*sizes, strict=True))
    return {**likeness(y, embed(new, test)), 'bytes': after / before}


def measure_whole(budget, sentences, others, seed):
    """All 36 layers at once, by a user's call."""
    model = minilm.load()
    texts, test = choose(docstrings(), sentences, others, seed)
    batches, test = batches_of(texts), batches_of(test)
    y = embed(model, test)
    part = part_of_model(model, 1 / budget, False)
    before = resident('VmRSS')
    wall, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    new, report = sl.compress(
        model, iter(batches), part, mask=minilm.is_token)
    wall = time.perf_counter() - wall
    now = resource.getrusage(resource.RUSAGE_SELF)
    print(report, file=sys.stderr)
    return {
        'seconds': round(wall, 1),
        'cpu_seconds': round(now.ru_utime - used.ru_utime
                             + now.ru_stime - used.ru_stime, 1),
        'gib_before': before, 'gib_peak': resident('VmHWM'),
        'gib_announced': report.memory / 2 ** 30,
        'load_average': os.getloadavg()[0],
        'threads': os.environ['OPENBLAS_NUM_THREADS'],
        **row_of(report, y, embed(new, test))}


def print_results(rows):
    harness.print_table(
        ['layers', 'budget', 'way', 'parameters', 'operations', 'cosine',
         'at least', 'a tenth below', 'measured / reported', 'seconds (CPU)',
         'at most', 'GiB'],
        [[row['of'], '1/{}'.format(row['budget']), row['way'],
          '{:,.0f}'.format(row['parameters']) if 'flops' in row else '',
          '1/{:.1f}'.format(1 / row['flops']) if 'flops' in row else '',
          '{:.4f}'.format(row['cosine']),
          str(LEAST_COSINE) if (row['budget'], row['way']) == (
              4, 'together') else '',
          '{:.4f}'.format(row['tenth']),
          '{:.2f}'.format(row['error'] / row['reported'])
          if 'reported' in row else '',
          '' if 'cpu_seconds' not in row else '{:.0f} ({:.0f})'.format(
              row['seconds'], row['cpu_seconds']),
          '' if 'cpu_seconds' not in row else str(MOST_SECONDS),
          '' if 'gib_peak' not in row else '{:.2f}'.format(row['gib_peak'])]
         for row in rows])


def add_arguments(parser):
    parser.add_argument(
        '--sentences', type=int, default=1000, help='docstrings to fit on')
    parser.add_argument(
        '--others', type=int, default=300, help='docstrings to test on')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the choice of docstrings')
    parser.add_argument(
        '--budgets', nargs='+', type=int, choices=BUDGETS, default=BUDGETS,
        help='times fewer parameters')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=WAYS)
    parser.add_argument(
        '--runs', type=Path, default=Path('result/minilm_quality'),
        help='folder that keeps each finished run: one is not repeated')


def main(argv=None):
    args = harness.parse_args(__doc__.splitlines()[0], argv, add_arguments)
    try:
        model = minilm.load()
    except ImportError as missing:
        sys.exit('{}: pip install ".[bench]"'.format(missing))
    difference = check(model)
    texts, test = choose(
        docstrings(), args.sentences, args.others, args.seed)
    batches, test = batches_of(texts), batches_of(test)
    y = embed(model, test)
    measured = Measured(model, batches, ATTENTION)
    args.runs.mkdir(parents=True, exist_ok=True)
    rows = []
    for budget in args.budgets:
        for way in args.ways:
            if way in ('8 bits', 'whole') and budget != 4:
                continue
            path = args.runs / '{}-{}-{}-{}.json'.format(
                way.replace(' ', '_'), budget, args.sentences, args.seed)
            if not path.exists():
                row = {'of': 'all' if way == 'whole' else 'feed-forward',
                       'budget': budget, 'way': way}
                if way == 'whole':
                    row |= json.loads(subprocess.run(
                        [sys.executable, __file__, '--whole', str(budget),
                         str(args.sentences), str(args.others),
                         str(args.seed)],
                        check=True, stdout=subprocess.PIPE, text=True).stdout)
                elif way == '8 bits':
                    row |= {'of': 'all', **measure_8_bits(
                        model, batches, test, y)}
                else:
                    start = time.perf_counter()
                    new, report = measured.compress(
                        part_of_model(model, 1 / budget, True), way)
                    row['seconds'] = round(time.perf_counter() - start, 1)
                    row |= row_of(report, y, embed(new, test))
                path.write_text(json.dumps(row, indent=1) + '\n', 'utf-8')
            rows.append(json.loads(path.read_text('utf-8')))
            print({key: value for key, value in rows[-1].items()
                   if key != 'layers'}, flush=True)
            harness.save(args, __file__, {
                'sentences': sum(map(len, batches)),
                'tokens': int(sum(minilm.is_token(b).sum() for b in batches)),
                'padding': int(sum((~minilm.is_token(b)).sum()
                                   for b in batches)),
                'others': sum(map(len, test)), 'seed': args.seed,
                'n_sweeps': N_SWEEPS,
                'difference_to_pytorch': difference, 'rows': rows})
    print_results(rows)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--whole']:
        print(json.dumps(measure_whole(*map(int, sys.argv[2:]))))
    else:
        main()
