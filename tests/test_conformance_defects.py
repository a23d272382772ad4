"For every promise of the suite there is a planted defect that breaks it: a promise that nothing can break would be none."
from collections import Counter

import pytest

from algo_kit.adapters.conformance import CASES, run_suite
from venue_defects import DEFECTS, bench

def failing(d, only=None): return {r.case.number for r in run_suite(bench(d), only).of("failed")}

def test_no_case_is_without_a_defect():
    claimed = {n for d in DEFECTS for n in d.cases}
    assert claimed <= set(CASES), sorted(claimed - set(CASES))
    assert set(CASES) <= claimed, f"no defect breaks {sorted(set(CASES) - claimed)}"
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)

@pytest.mark.parametrize("d", DEFECTS, ids=lambda d: d.name)
def test_a_planted_defect_is_seen(d):
    seen = failing(d, d.cases)
    assert seen == set(d.cases), f"{d.name}: {sorted(set(d.cases) - seen)} did not see it"

@pytest.mark.slow
def test_table_of_cases_and_defects(capsys):
    "Every defect against every case that its bench can try; printed."
    rows, alone = {n: [] for n in CASES}, Counter()
    for d in DEFECTS:
        seen = failing(d)
        assert seen >= set(d.cases), d.name
        for n in seen: rows[n].append(d.name)
        alone[len(seen)] += 1
    with capsys.disabled():
        print(f"\n{len(DEFECTS)} planted defects, {len(CASES)} cases; {alone[1]} defects are seen by one case alone")
        for n, names in rows.items(): print(f"{n:>5} {CASES[n].name[:58]:58} {len(names):>3}  {'; '.join(names)[:200]}")
    assert all(rows.values())
