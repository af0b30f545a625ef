"""A few runs with each fault of tests/stress/, which has more: python -m tests.stress"""
import sys

import pytest

from stress import runs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and mounts disks")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return runs.Undisturbed(tmp_path_factory.mktemp("stress"))


@pytest.mark.parametrize("name", runs.FAULTS)
def test_a_run_that_is_ill_treated_and_resumed_ends_with_the_same_numbers(name, undisturbed):
    if name in runs.NEED_MOUNT and not runs.may_mount():
        pytest.skip("this system lets it mount no disk")
    tried = list(runs.faulty(undisturbed, name, 3 if name == "SIGKILL" else 1, seed=0))
    assert not [(what, problem) for what, problem in tried if problem]


def test_a_run_with_other_numbers_is_found(undisturbed):
    folder = undisturbed.home / "other"
    code, _, _ = runs.child(undisturbed.home, folder, lambda: runs.run.main([*runs.SMALL, "SEED=1"]))
    assert code == 0 and undisturbed.differs(folder) == "files, log.jsonl"
