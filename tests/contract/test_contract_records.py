"""What each study finds at its smallest size: measures, verdicts, tables, losses."""

from __future__ import annotations

import pytest
from contract_differences import assert_as_frozen, differences, frozen, tolerance
from contract_names import locate
from contract_records import IN_DEFAULT_SUITE, SETTINGS, record_of

RECORDS = frozen("records")


def test_every_study_should_be_frozen():
    assert set(RECORDS) == set(SETTINGS) == set(locate("metier.studies.REGISTRY"))


@pytest.mark.parametrize(
    "study", [pytest.param(n, marks=[] if n in IN_DEFAULT_SUITE else [pytest.mark.slow]) for n in RECORDS]
)
def test_study_should_find_what_is_frozen(study, strict, tmp_path):
    rtol = tolerance(f"study {study}", strict)
    found = differences(RECORDS[study], record_of(study, tmp_path / "run"), rtol, grows=True)
    assert_as_frozen("records", study, list(found))
