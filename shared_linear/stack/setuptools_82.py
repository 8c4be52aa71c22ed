"""What setuptools 82 and Python 3.12 took: pkg_resources and distutils."""
from __future__ import annotations

from importlib import metadata

from shared_linear.stack.mending import Source, mends


class ResolutionError(Exception):

    """A requirement that is not met."""


class WorkingSet:

    """As much of pkg_resources as ``chainer.testing`` asks for."""

    def require(self, *requirements: str) -> None:
        """Does nothing where all are met, such as ``'numpy>=1.10,<3'``.

        Raises:
            ResolutionError: If one is not.
            ImportError: If the package packaging is not there, which pytest
                brings with it.

        """
        from packaging.requirements import Requirement
        for text in requirements:
            requirement = Requirement(text)
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                raise ResolutionError(text) from None
            if not requirement.specifier.contains(version, prereleases=True):
                raise ResolutionError(text)


@mends('chainer._environment_check')
def skip_environment_check(source: Source) -> None:
    """``import chainer`` inspects the environment with removed modules.

    ``chainer._environment_check`` imports ``numpy.distutils`` (gone from
    Python 3.12) and ``pkg_resources`` (gone from setuptools 82), to warn of
    Python 3.5.0 and of an old CuPy. An empty check takes its place.
    """
    source.text = 'def check():\n    pass\n'


@mends('chainer.testing.helper', 'chainer.testing.doctest_helper')
def ask_for_versions_without_pkg_resources(source: Source) -> None:
    """``chainer.testing`` and ``chainer.gradient_check`` import it.

    Without this they fail where setuptools is 82 or newer, and where it is
    not there; where it is older, it warns of its end.
    """
    source.replace(
        'import pkg_resources\n',
        'import shared_linear.stack.setuptools_82 as pkg_resources\n')
