import pytest

from mnist import summary
from mnist.network import MLP


def entry(epoch, accuracy, elapsed_time):
    return {
        'epoch': epoch, 'iteration': 40 * epoch,
        'elapsed_time': elapsed_time, 'validation/main/accuracy': accuracy}


LOG = [
    entry(0, .1, 1.5), entry(1, .9, 3.5), entry(2, .95, 5.5),
    entry(3, .97, 7.5), entry(4, .975, 10.5)]


def test_shared_table():
    # 785 = 784 + 1 and 901 = 900 + 1 with the biases; by hand:
    # 1000 * 785 + 900 * 100 + 10 * 901, and 900 * 1000 for the dense layer.
    # The last three errors are 5, 3 and 2.5; 9 seconds are four epochs.
    assert summary.format_table(MLP(1000, 900), LOG) == '''\
parameters                 this run      dense
l1: 784 -> 1000             785,000    785,000  100 %
l2: 1000 -> 900, 10 tiles    90,000    900,000   10 %
l3: 900 -> 10                 9,010      9,010  100 %
in all                      884,010  1,694,010   52 %

test error, last epoch       2.50 %
test error, last 3 epochs    3.50 %
seconds per epoch              2.25'''


def test_dense_table():
    lines = summary.format_table(
        MLP(20, 10, layer='linear'), LOG).splitlines()
    # 20 * 785 + 10 * 20 + 10 * 11
    assert lines[2].split() == ['l2:', '20', '->', '10', '200', '200'] + [
        '100', '%']
    assert lines[4].split() == ['in', 'all', '16,010', '16,010', '100', '%']


@pytest.mark.parametrize(('n_epochs', 'mean_is_shown'), [
    (1, False), (2, False), (3, True)])
def test_mean_error_where_there_are_three_epochs(n_epochs, mean_is_shown):
    table = summary.format_table(MLP(20, 10), LOG[:n_epochs + 1])
    assert ('last 3 epochs' in table) is mean_is_shown
    assert 'last epoch' in table


def test_errors_leave_out_the_untrained_network():
    assert summary.test_errors(LOG) == pytest.approx([10, 5, 3, 2.5])
