"""The script that runs Chainer's own tests counts what is not listed."""
import collections

import chainer_suite
import pytest


@pytest.mark.parametrize('name, expected', [
    ('a/test_b.py::TestC_param_3_{dtype=float16, x=[1, 2]}::test_d',
     'a/test_b.py::TestC::test_d'),
    ('a/test_b.py::TestC_use_chainerx_false__use_cuda_false::test_d',
     'a/test_b.py::TestC::test_d'),
    ('a/test_b.py::TestC_param_0_{a=1}_param_8_{b=2}_use_cuda_x::test_d_e',
     'a/test_b.py::TestC::test_d_e'),
    ('a/test_b.py::test_d', 'a/test_b.py::test_d')])
def test_a_name_without_parameters(name, expected):
    assert chainer_suite.without_parameters(name) == expected


def test_every_failure_that_is_listed_has_a_reason():
    listed = list(chainer_suite.read_list())
    assert len(listed) > 5
    for pattern, reason in listed:
        assert pattern.startswith('chainer_tests/'), pattern
        assert reason.startswith('It ') and reason.endswith('.'), reason


def test_a_failure_that_is_not_listed_is_one(capsys):
    own = 'chainer_tests/backends_tests/test_cuda.py::' \
        'TestCudaModuleAliasForBackwardCompatibility::test_import1'
    assert chainer_suite.report(collections.Counter([own])) == 0
    assert 'not listed: 0' in capsys.readouterr().out
    assert chainer_suite.report(collections.Counter(
        [own, 'chainer_tests/a.py::B::c', 'chainer_tests/a.py::B::c'])) == 1
    assert 'not listed: 2' in capsys.readouterr().out


def test_a_folder_that_is_no_checkout_of_chainer(tmp_path):
    with pytest.raises(SystemExit, match='give the folder of a checkout'):
        chainer_suite.main(str(tmp_path))
