"""Modules that old programs import, and that Python has no more."""
from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import sys
import types
from collections.abc import Iterator
from importlib import metadata, resources
from typing import Any
from xml.etree import ElementTree

from shared_linear.stack import setuptools_82


def give_back() -> Iterator[str]:
    """Modules that are gone, as far as such programs make use of them."""
    for name, make in [('imp', make_imp), ('distutils', make_distutils),
                       ('pkg_resources', make_pkg_resources),
                       ('xml.etree.cElementTree', make_element_tree)]:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules.update(make())
            yield name


def _module(name: str, **contents: Any) -> types.ModuleType:
    module = types.ModuleType(
        name, 'As much of it as old programs need, by shared_linear.')
    vars(module).update(contents)
    return module


def make_element_tree() -> dict[str, types.ModuleType]:
    # Gone from Python 3.9.
    return {'xml.etree.cElementTree': ElementTree}


def make_imp() -> dict[str, types.ModuleType]:
    # Gone from Python 3.12.
    def load_source(name: str, path: str) -> types.ModuleType:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError('no Python source: {!r}'.format(path))
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return {'imp': _module(
        'imp', reload=importlib.reload, load_source=load_source,
        new_module=types.ModuleType)}


def make_distutils() -> dict[str, types.ModuleType]:
    # Gone from Python 3.12.
    class LooseVersion:

        """A version that compares by its numbers and words."""

        def __init__(self, vstring: str = '') -> None:
            self.vstring = vstring
            self.version = [
                int(part) if part.isdigit() else part
                for part in re.findall(r'\d+|[a-z]+', vstring)]

        def __str__(self) -> str:
            return self.vstring

        def __repr__(self) -> str:
            return 'LooseVersion ({!r})'.format(self.vstring)

        def __eq__(self, other: object) -> bool:
            return self.version == self._of(other)

        def __lt__(self, other: object) -> bool:
            return self.version < self._of(other)

        def __le__(self, other: object) -> bool:
            return self.version <= self._of(other)

        def __gt__(self, other: object) -> bool:
            return self.version > self._of(other)

        def __ge__(self, other: object) -> bool:
            return self.version >= self._of(other)

        __hash__ = None  # type: ignore[assignment]

        def _of(self, other: object) -> list[Any]:
            return other.version if isinstance(other, LooseVersion) else (
                LooseVersion(str(other)).version)

    def strtobool(val: str) -> int:
        word = val.lower()
        if word in ('y', 'yes', 't', 'true', 'on', '1'):
            return 1
        if word in ('n', 'no', 'f', 'false', 'off', '0'):
            return 0
        raise ValueError('invalid truth value {!r}'.format(val))

    version = _module('distutils.version', LooseVersion=LooseVersion,
                      StrictVersion=LooseVersion)
    util = _module('distutils.util', strtobool=strtobool)
    spawn = _module('distutils.spawn', find_executable=shutil.which)
    package = _module('distutils', version=version, util=util, spawn=spawn,
                      __path__=[])
    return {m.__name__: m for m in (package, version, util, spawn)}


def make_pkg_resources() -> dict[str, types.ModuleType]:
    # Gone from setuptools 82.
    class VersionConflict(setuptools_82.ResolutionError):

        """Never raised: it is there to be caught."""

    def get_distribution(name: str) -> types.SimpleNamespace:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError as e:
            raise setuptools_82.ResolutionError(str(e)) from None
        return types.SimpleNamespace(
            project_name=name, key=name.lower(), version=version)

    def resource_filename(package: str, name: str) -> str:
        return str(resources.files(package) / name)

    def resource_string(package: str, name: str) -> bytes:
        return (resources.files(package) / name).read_bytes()

    def parse_version(version: str) -> Any:
        return importlib.import_module('packaging.version').parse(version)

    return {'pkg_resources': _module(
        'pkg_resources', get_distribution=get_distribution,
        require=setuptools_82.WorkingSet().require,
        WorkingSet=setuptools_82.WorkingSet, parse_version=parse_version,
        resource_filename=resource_filename, resource_string=resource_string,
        ResolutionError=setuptools_82.ResolutionError,
        DistributionNotFound=setuptools_82.ResolutionError,
        VersionConflict=VersionConflict)}
