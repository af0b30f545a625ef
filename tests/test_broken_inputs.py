"""Data sets, metrics and run folders with something broken at random: each is read or refused with a UserError."""
from stress import inputs


def test_no_broken_input_ends_in_a_traceback_or_a_hang(tmp_path):
    tried = list(inputs.broken_data(tmp_path, 300, seed=0))
    assert not [(what, problem) for what, problem, _ in tried if problem]
    assert sum(refused for *_, refused in tried) > 100          # or they were hardly broken


def test_no_broken_run_folder_ends_in_a_traceback_or_a_hang(tmp_path):
    tried = list(inputs.broken_runs(tmp_path, 5, seed=0))       # more: python -m tests.stress
    assert not [(what, problem) for what, problem, _ in tried if problem]
    assert any(refused for *_, refused in tried)
