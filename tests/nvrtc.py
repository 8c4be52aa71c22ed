"""CUDA's run-time compiler, which needs no GPU."""
import ctypes
import functools
import itertools
import sys
from pathlib import Path

import pytest


@functools.cache
def find_nvrtc():
    """The library of NVRTC, which pip installs below site-packages."""
    patterns = ['nvidia/cu13/lib/libnvrtc.so.*', 'nvidia/*/lib/libnvrtc.so.*']
    for folder, pattern in itertools.product(sys.path, patterns):
        for path in sorted(Path(folder).glob(pattern)):
            if '.alt.' not in path.name:
                return ctypes.CDLL(str(path))
    return None


def compile_cuda(source, options):
    """Returns what the compiler says, and the PTX; None if it fails."""
    nvrtc = find_nvrtc()
    if nvrtc is None:
        pytest.skip('needs NVRTC: pip install nvidia-cuda-nvrtc')
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
