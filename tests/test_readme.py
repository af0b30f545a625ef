"""The READMEs name only what exists, and their tables are those of benchmarks/results/."""
import importlib
import re
from pathlib import Path

import pytest

import data.options
import expr_classifier.run
import metric_vae.run
import run
from conftest import SCRIPTS, WITH_CONSTANTS
from training.settings import constants, parse, parse_one

ROOT = Path(__file__).resolve().parents[1]
READMES = ["README.md", "benchmarks/README.md", "data/README.md"]
RESULTS = {"synthetic": "synthetic_????????_test", "photographs": "photos_????????_test"}
MODULES = {name if "." in name else f"{name}.py": importlib.import_module(name) for name in SCRIPTS}


def words(name):
    """The number of words of a README, code and tables included, without the lines that tables are drawn with."""
    return sum(any(map(str.isalnum, word)) for word in (ROOT / name).read_text().split())


def rows_of(text):
    """The rows of the only table in a text: {what: {heading: the cell's first word}}."""
    (_, *headings), *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()
                             if line.startswith("| ")]
    return {what: {heading: cell.partition(" ")[0] for heading, cell in zip(headings, cells, strict=True)}
            for what, *cells in rows}


def summary(data):
    """The rows of a data set's summary.md."""
    path, = (ROOT / "benchmarks" / "results").glob(f"{RESULTS[data]}/summary.md")
    return rows_of(path.read_text())


def test_they_are_short_enough_to_be_read():
    assert words("README.md") <= 1300 and words("data/README.md") <= 700


def test_the_table_of_the_readme_is_that_of_the_results():
    _, text = (ROOT / "README.md").read_text().split("## Results")
    rows = rows_of(text.split("\n\n")[1])
    assert 1 <= len(rows) <= 8
    for row, cells in rows.items():
        data, what = row.split(": ", 1)
        assert cells.items() <= summary(data)[what].items(), row


@pytest.mark.parametrize("data", RESULTS)
@pytest.mark.parametrize("table", ["summary", "consistency"])
def test_the_tables_of_each_data_set_stand_in_the_readme_of_benchmarks(data, table):
    path, = (ROOT / "benchmarks" / "results").glob(f"{RESULTS[data]}/{table}.md")
    assert path.read_text().strip() in (ROOT / "benchmarks" / "README.md").read_text()


@pytest.mark.parametrize("readme", READMES)
def test_every_link_and_path_exists(readme):
    text = (ROOT / readme).read_text()
    folder = (ROOT / readme).parent
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (folder / target).exists(), target
    for path in re.findall(r"`((?:[\w.]+/)*[\w.]+\.py)`", text):
        assert (ROOT / path).exists() or (folder / path).exists(), path


@pytest.mark.parametrize("readme", READMES)
def test_every_constant_exists(readme):
    known = {name for script in WITH_CONSTANTS for name in constants(importlib.import_module(script))}
    text = re.sub(r"```(?!\n(?:python|torchrun)).*?```", "", (ROOT / readme).read_text(), flags=re.DOTALL)
    for name in re.findall(r"`([A-Z][A-Z_0-9]{2,})(?:=[^`]*)?`", text):
        assert name in known, name


@pytest.mark.parametrize("readme", READMES)
def test_every_command_has_arguments_that_its_script_takes(readme):
    text = re.sub(r"=\$\w+", "=1", (ROOT / readme).read_text())          # of a shell's loop
    for line in re.findall(r"python ((?:-m )?[\w./]+(?:\.py)?(?: [\w.]+=[^\s`;]+)*)", text):
        script, *arguments = line.removeprefix("-m ").rstrip(".").split()
        if script == "run.py":
            parse(arguments, {"": run, "classifier": expr_classifier.run, "vae": metric_vae.run,
                              "faces": data.options})
        elif script in MODULES:
            parse(arguments, {"": MODULES[script], "faces": data.options})
        elif script == "data":
            parse_one(arguments, data.options)
        else:
            assert script in ("pytest", "tests.stress"), line
