"""What the command says, and how it ends."""

import errno
import itertools
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

import ude
from ude._checks import InputError
from ude.cli import discover as door
from ude.cli import main
from ude.fit import training
from ude.fit.training import evaluate
from ude.problems import SolveError
from ude.report import run_job
from ude.reproduce import REPRODUCTIONS, Line, Outcome
from ude.systems import hudson_bay, hudson_bay_csv, logistic_solution

EQUATIONS = ("-e", "hare' = a*hare + ?(hare, lynx)", "-e", "lynx' = -d*lynx + ?(hare, lynx)")


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hudson_bay.csv").write_text(hudson_bay_csv())


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments):
    result = call("discover", *arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return result.stderr


def test_version_and_help():
    assert call("--version").stdout.strip() == f"ude, version {ude.__version__}"
    assert "ude discover hudson_bay.csv --time year" in call("--help").stdout
    assert "--equation" in call("discover", "--help").stdout


def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "ude", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith(ude.__version__)


BAD = {
    "a missing file": (("none.csv", "--time", "year", *EQUATIONS), "There is no file 'none.csv'"),
    "a folder": ((".", "--time", "year", *EQUATIONS), "is a folder"),
    "a missing column": (("hudson_bay.csv", "--time", "yaer", *EQUATIONS), "Did you mean 'year'?"),
    "an equation without a column": (
        ("hudson_bay.csv", "--time", "year", "-e", "fox' = ?(fox)"),
        "The state 'fox' has an equation but no column",
    ),
    "an unknown symbol in an unknown term": (
        ("hudson_bay.csv", "--time", "year", "-e", "hare' = ?(hare, lyx)"),
        "Did you mean 'lynx'?",
    ),
    "an unsafe expression": (
        ("hudson_bay.csv", "--time", "year", "-e", "hare' = __import__('os').system('ls')"),
        "does not begin with two underscores",
    ),
    "no unknown term": (("hudson_bay.csv", "--time", "year", "-e", "hare' = -hare"), "no unknown term"),
    "a parameter that is none": (
        ("hudson_bay.csv", "--time", "year", *EQUATIONS, "--parameter", "b=1"),
        "'b' is not a parameter",
    ),
    "a parameter without a number": (
        ("hudson_bay.csv", "--time", "year", *EQUATIONS, "--parameter", "a=big"),
        "expected a name and a number",
    ),
    "a missing option": (("hudson_bay.csv", *EQUATIONS), "Missing option '--time'"),
    "a misspelt option": (("hudson_bay.csv", "--tiem", "year", *EQUATIONS), "No such option"),
    "a folder that cannot be made": (
        ("hudson_bay.csv", "--time", "year", *EQUATIONS, "--out", "hudson_bay.csv"),
        "is a file",
    ),
    "nothing to resume": (("hudson_bay.csv", "--time", "year", *EQUATIONS, "--resume"), "no checkpoint"),
}


@pytest.mark.parametrize("case", BAD)
def test_says_what_is_wrong_and_ends_with_two(case):
    arguments, message = BAD[case]
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [("1900,30,4\n1901,many,6\n", "line 3, column 'hare': expected a number"), ("1900,30,4\n1900,1,2\n", "repeated")],
)
def test_a_bad_table_is_named_with_line_and_column(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text("year,hare,lynx\n" + text)
    assert message in refused("bad.csv", "--time", "year", *EQUATIONS)


def test_an_existing_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "run_job", lambda *_, **__: pytest.fail("worked first"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "--overwrite" in refused("hudson_bay.csv", "--time", "year", *EQUATIONS, "--out", "run")


def test_an_interrupted_run_is_not_overwritten_by_a_new_one(tmp_path):
    (tmp_path / "run.checkpoint").write_text("precious")
    message = refused("hudson_bay.csv", "--time", "year", *EQUATIONS, "--out", "run")
    assert "--resume" in message
    assert (tmp_path / "run.checkpoint").read_text() == "precious"


def diverged():
    problem = ude.ODEProblem(lambda t, y: y * y, torch.ones(1, dtype=torch.float64), (0.0, 2.0))
    with pytest.raises(SolveError) as caught:
        ude.solve(problem)
    return caught.value


ENDS = {
    "Ctrl-C": (KeyboardInterrupt(), 130, "Nothing was kept"),
    "a diverging solve": (diverged(), 2, "could not be solved"),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), 2, "The disk is full"),
    "no permission": (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "No permission"),
    "no memory": (MemoryError(), 2, "Not enough memory"),
    "a defect": (ZeroDivisionError("division by zero"), 1, "--debug"),
}


@pytest.mark.parametrize("case", ENDS)
def test_every_end_is_one_sentence(monkeypatch, case):
    error, code, message = ENDS[case]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(door, "run_job", fail)
    result = call("discover", "hudson_bay.csv", "--time", "year", *EQUATIONS, "--quiet")
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    shown = call("discover", "hudson_bay.csv", "--time", "year", *EQUATIONS, "--quiet", "--debug")
    assert "Traceback" in shown.stderr


def test_a_column_named_in_an_equation_is_an_input(tmp_path, monkeypatch):
    (tmp_path / "dose.csv").write_text("t,c,dose\n0,1,2\n1,2,3\n2,3,4\n")
    seen = {}

    def remember(job, data, **_):
        seen.update(job=job, data=data)
        raise InputError("Seen.")

    monkeypatch.setattr(door, "run_job", remember)
    call("discover", "dose.csv", "--time", "t", "-e", "c' = k*dose - ?(c)", "--quiet")
    assert seen["job"].inputs == ("dose",)
    assert seen["data"].input_names == ("dose",)
    call("discover", "dose.csv", "--time", "t", "-e", "c' = k*dose - ?(c)", "--quiet", "--parameter", "dose=1")
    assert seen["job"].inputs == ()


trained = []


def train_once(*arguments, **options):
    if not trained:
        trained.append(run_job(*arguments, **options))
    return trained[0]


@pytest.fixture
def logistic_csv(tmp_path, monkeypatch):
    t = torch.arange(13, dtype=torch.float64)
    rows = zip(t.tolist(), (10 * logistic_solution(t, rate=0.7))[:, 0].tolist(), strict=True)
    (tmp_path / "n.csv").write_text("t,n\n" + "\n".join(f"{a},{b}" for a, b in rows))
    monkeypatch.setattr(door, "run_job", train_once)
    return ("n.csv", "--time", "t", "-e", "n' = r*n + ?(n)", "--positive", "r", "--quick", "--replicates", "2")


@pytest.mark.usefixtures("unchecked")
def test_from_a_table_to_equations_and_a_report(tmp_path, logistic_csv):
    result = call("discover", *logistic_csv, "--out", "run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == "n' = -0.07*n**2 + 0.7*n"
    assert "90 % interval" in result.stdout
    assert "Report: run/report.html" in result.stdout
    assert (tmp_path / "run" / "report.html").exists()
    assert not list(tmp_path.glob("*.checkpoint"))
    assert ude.load("run").states == ("n",)


def test_a_full_disk_at_the_end_still_shows_the_result(tmp_path, logistic_csv, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(door, "write_report", full)
    result = call("discover", *logistic_csv, "--out", "run")
    assert result.exit_code == 2
    assert "n' = -0.07*n**2 + 0.7*n" in result.stdout
    assert "The disk is full" in result.stderr


def test_reproduce_lists_and_suggests():
    assert "hudson" in call("reproduce", "--list").stdout
    result = call("reproduce", "hudsen")
    assert result.exit_code == 2
    assert "Did you mean 'hudson'?" in result.stderr


def test_reproduce_refuses_what_has_no_meaning():
    for words, message in (
        (("hudson", "--budget", "huge"), "Choose `--budget` from smoke, cpu"),
        (("hudson", "--workers", "2"), "leave out `--workers`"),
        (("t1", "--out", "hudson_bay.csv"), "is a file"),
    ):
        result = call("reproduce", *words)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_reproduction_that_keeps_its_runs_goes_on_after_an_interruption(tmp_path, monkeypatch):
    settings_seen = []

    def run(settings):
        settings_seen.append(settings)
        if len(settings_seen) == 1:
            raise KeyboardInterrupt
        return Outcome(lines=[Line.at_most("error", "", [2.0], 1.0)], seconds=0.0)

    monkeypatch.setitem(REPRODUCTIONS, "t1", replace(REPRODUCTIONS["t1"], run=run))
    stopped = call("reproduce", "t1", "--quick", "--workers", "2")
    assert stopped.exit_code == 130
    assert "Go on with the same command" in stopped.stderr
    (tmp_path / "runs/t1-smoke/runs/vanilla-seed0.json").write_text("precious")
    done = call("reproduce", "t1", "--quick", "--workers", "2")
    assert done.exit_code == 0, done.stderr
    assert "MISSED" in done.stdout
    assert (tmp_path / "runs/t1-smoke/runs/vanilla-seed0.json").read_text() == "precious"
    assert (tmp_path / "runs/t1-smoke/table.md").exists()
    manifest = json.loads((tmp_path / "runs/t1-smoke/config.json").read_text())
    assert (manifest["seeds"], manifest["settings"]["budget"], manifest["settings"]["workers"]) == ([0], "smoke", 2)
    assert manifest["machine"]["torch"] == torch.__version__
    assert settings_seen[1] == settings_seen[0]


@pytest.mark.usefixtures("unchecked")
def test_an_interrupted_run_is_taken_up_to_the_same_result(tmp_path, logistic_csv, monkeypatch):
    whole = call("discover", *logistic_csv)
    monkeypatch.setattr(door, "run_job", run_job)
    evaluations = itertools.count()

    def interrupted(*arguments):
        if next(evaluations) == 300:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(training, "evaluate", interrupted)
    stopped = call("discover", *logistic_csv, "--out", "run")
    assert stopped.exit_code == 130
    assert "`--resume`" in stopped.stderr
    assert "run.checkpoint" in stopped.stderr
    assert not (tmp_path / "run").exists()
    resumed = call("discover", *logistic_csv, "--out", "run", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.stdout.startswith(whole.stdout)
    assert (tmp_path / "run" / "report.html").exists()
    assert not (tmp_path / "run.checkpoint").exists()


def test_data_prints_a_table_that_can_be_read(tmp_path):
    (tmp_path / "printed.csv").write_text(call("data", "hudson_bay").stdout)
    assert torch.equal(ude.read_csv("printed.csv", time="year").ys, hudson_bay().ys)
    assert "Hewitt" in call("data", "--list").stdout
    result = call("data", "hudson")
    assert result.exit_code == 2
    assert "Did you mean 'hudson_bay'?" in result.stderr


def test_download_lists_and_suggests(tmp_path, monkeypatch):
    listed = call("download", "--list").stdout
    assert listed == call("download").stdout
    assert "physionet2012    6.7 MB from https://physionet.org/files/challenge-2012/1.0.0" in listed
    result = call("download", "mnits", "--data", tmp_path)
    assert result.exit_code == 2
    assert "Did you mean 'mnist'?" in result.stderr
    monkeypatch.delenv("UDE_DATA", raising=False)
    assert "Name the folder with `--data DIR`" in call("download", "mnist").stderr


def test_an_interrupted_download_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ude.datasets.download", interrupted)
    result = call("download", "mnist", "--data", tmp_path)
    assert result.exit_code == 130
    assert result.stderr == "Interrupted: What arrived is kept. Continue with the same command.\n"
