"""CUDA's run-time compiler, which needs no GPU.

``python tests/nvrtc.py`` fetches it for the Python that runs it, 56 MB, into
a folder that nothing but these tests looks into: CuPy takes the newest that
is installed, and that may be newer than the driver of the GPU.
"""
import contextlib
import ctypes
import functools
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix, 'nvrtc')
REQUIREMENT = (
    'nvidia-cuda-nvrtc>=13; sys_platform == "linux" and '
    'platform_machine in "x86_64 aarch64"')


@functools.cache
def find_nvrtc():
    """The library of NVRTC: the tests' own, or that of a CuPy."""
    # CuPy takes the newest that is loaded: it finds its own first.
    with contextlib.suppress(ImportError, RuntimeError):
        from cupy.cuda import nvrtc
        nvrtc.getVersion()
    for folder in FOLDER, *map(Path, sys.path):
        for path in sorted(folder.glob('nvidia/*/lib/libnvrtc.so.*')):
            if '.alt.' not in path.name:
                return ctypes.CDLL(str(path))
    return None


def compile_cuda(source, options):
    """Returns what the compiler says, and the PTX; None if it fails."""
    nvrtc = find_nvrtc()
    if nvrtc is None:
        pytest.skip('needs NVRTC: python tests/nvrtc.py fetches it')
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b'kernel.cu', 0, None, None
    ) == 0
    arguments = (ctypes.c_char_p * len(options))(
        *[option.encode() for option in options])
    failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)

    def read(what):
        size = ctypes.c_size_t()
        assert getattr(nvrtc, 'nvrtcGet{}Size'.format(what))(
            program, ctypes.byref(size)) == 0
        text = ctypes.create_string_buffer(size.value)
        assert getattr(nvrtc, 'nvrtcGet{}'.format(what))(program, text) == 0
        return text.value.decode()

    said = read('ProgramLog')
    ptx = None if failed else read('PTX')
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return said, ptx


def fetch():
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps',
         '--upgrade', '--target', str(FOLDER), REQUIREMENT], check=True)


if __name__ == '__main__':
    fetch()
