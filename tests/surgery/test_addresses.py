import pytest
from networks import MLP

from shared_linear.surgery.addresses import Pattern, nearest


@pytest.mark.parametrize('pattern, address, expected', [
    ('/ReLU', '/ReLU', True),
    ('/ReLU', '/ReLU_1', False),
    ('/ReLU*', '/ReLU_12', True),
    ('/ReLU*', '/block/ReLU', False),
    ('/conv*/ReLU*', '/conv1/ReLU_2', True),
    ('/conv*/ReLU*', '/conv1/a/ReLU', False),
    ('/**/ReLU', '/ReLU', True),
    ('/**/ReLU', '/a/b/ReLU', True),
    ('ReLU*', '/a/b/ReLU_1', True),
    ('ReLU*', '/a/ReLU_1/x', False),
    ('/a/**', '/a/b/c', True),
    ('/a/**', '/a', True),
    ('/a/**/c', '/a/c', True),
    ('/a/**/c', '/a/x/y/d', False),
    ('/relu', '/ReLU', False),
    ('/l?', '/l1', True),
    ('/[ab]', '/b', True),
])
def test_a_pattern_selects_like_a_shell(pattern, address, expected):
    assert Pattern(pattern).matches(address) is expected
    # What runs directly in the link above is selected by the same rule.
    path, _, name = address.rpartition('/')
    below = [part for part in Pattern(pattern).within(path)]
    assert any(Pattern('/' + part).matches('/' + name)
               for part in below if part != '**') is expected


def test_case_can_be_ignored():
    assert Pattern('/dropout', ignore_case=True).matches('/Dropout')
    assert not Pattern('/dropout').matches('/Dropout')


@pytest.mark.parametrize('text', ['', '/', '//'])
def test_an_address_of_nothing_is_refused(text):
    with pytest.raises(ValueError, match='names nothing'):
        Pattern(text)


def test_an_address_is_text():
    with pytest.raises(TypeError, match='must be a str.*not Linear'):
        Pattern(MLP().l1)


def test_the_nearest_address_comes_first():
    names = ['/conv1', '/relu/ReLU', '/ReLU', '/ReLU_1', '/fc']
    assert nearest('/Relu', names).split(', ')[0] == '/ReLU'
    assert nearest('/x', []) == 'there are none'
