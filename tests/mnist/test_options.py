import pytest

from mnist import options
from mnist.errors import UserError


def test_defaults():
    assert vars(options.parse([])) == {
        'batchsize': 100, 'epoch': 20, 'frequency': 1, 'device': '-1',
        'out': 'result', 'resume': None, 'unit': 1000, 'out_unit': 900,
        'n_tiles': 10, 'n_blocks': 10, 'rank': 20, 'order': None,
        'first_tiles': None, 'layer': 'shared', 'seed': 0,
        'optimizer': 'blocked-adam', 'data': None,
        'communicator': None, 'no_plots': False, 'no_report': False,
        'command': []}


def test_short_flags_are_those_of_chainers_example():
    args = options.parse(
        '-b 5 -e 6 -f 7 -d -1 -o here -r there -u 8'.split())
    assert (args.batchsize, args.epoch, args.frequency, args.unit) == (
        5, 6, 7, 8)
    assert (args.device, args.out, args.resume) == ('-1', 'here', 'there')


def test_resume_without_a_name():
    assert options.parse(['-r']).resume is options.NEWEST
    assert options.parse(['-r', '-e', '3']).resume is options.NEWEST


@pytest.mark.parametrize('flag', [
    '--batchsize', '--epoch', '--unit', '--out-unit', '--n-tiles'])
@pytest.mark.parametrize('value', ['0', '-3', '1.5', 'many', '', '9' * 5000])
def test_numbers_that_are_not(flag, value):
    with pytest.raises(UserError, match=f'{flag}.*: expected a .*number'):
        options.parse([flag, value])


@pytest.mark.parametrize('value', ['0', '-2'])
def test_frequency(value):
    with pytest.raises(UserError, match=r'--frequency.*at least 1, or -1'):
        options.parse(['-f', value])
    assert options.parse(['-f', '-1']).frequency == -1


@pytest.mark.parametrize('value', ['-1', '4294967296'])
def test_seed_that_numpy_does_not_take(value):
    with pytest.raises(UserError, match='--seed.*from 0 to 2'):
        options.parse(['--seed', value])


def test_layer_of_no_kind():
    with pytest.raises(UserError, match=r"'conv' \(choose from"):
        options.parse(['--layer', 'conv'])


def test_flag_that_is_not_there():
    with pytest.raises(UserError, match='unrecognized arguments: --epochs3'):
        options.parse(['--epochs3'])
