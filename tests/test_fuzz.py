"A few thousand broken inputs; python tests/fuzz.py reads as many as you like."
import pytest

from fuzz import TARGETS, fuzz

def test_whatever_comes_is_read_rightly_or_refused_in_the_kits_own_words():
    found, counts = fuzz(2000, seed=0)
    assert not found, '\n'.join(found)
    # both ends are tried for every reader
    assert {what.split()[0] for what in counts} == set(TARGETS) and {what.split()[1] for what in counts} == {'read', 'refused'}

@pytest.mark.slow
def test_a_hundred_thousand():
    found, counts = fuzz(100_000, seed=1_000_000)
    assert not found and counts.total() == 100_000, '\n'.join(found)
