"The engine against the twin: answer by answer, with times, wallets and positions, on the hand-made markets and on random ones."
import pytest
from compiled import difference
from flows import MODES, seeded
from scenarios import ALL


@pytest.mark.parametrize("s", ALL, ids=lambda s: s["name"].replace(" ", "_"))
def test_by_hand(s): assert not difference(s)

@pytest.mark.parametrize("mode", MODES)
def test_random_markets(mode):
    for seed in range(60): assert not (d := difference(seeded(seed, mode))), f"seeded({seed}, {mode!r}): {d}"

@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_many_random_markets(mode):
    for seed in range(1000, 1500): assert not (d := difference(seeded(seed, mode))), f"seeded({seed}, {mode!r}): {d}"
