"""From a job to a folder and back to the model."""

import json
import pickle
import re
import zipfile
from dataclasses import replace

import pytest
import torch

import ude
from ude._checks import InputError
from ude.problems import Trajectories
from ude.report import Job, Source, facts, load, run_job, write_report
from ude.report.compose import compose, scaled_sse
from ude.report.curves import Paths

EVIL = "<script>alert(1)</script>.csv"


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    target = tmp_path_factory.mktemp("runs") / "run"
    write_report(target, run, Source(name=EVIL, command=f"ude discover {EVIL!r}", sha256="ab" * 32))
    return target


@pytest.fixture
def copy(folder, tmp_path):
    for name in ("config.json", "model.pt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


def test_the_missing_term_is_recovered(run):
    # n' = 0.7 n (1 - n / 10), exact data: limited by the solver's steps.
    values = {e.name: e.value for e in run.discovery.estimates}
    assert values["U.U_n: n^2"] == pytest.approx(-0.07, rel=1e-4)
    assert values["r"] == pytest.approx(0.7, rel=1e-4)


def test_the_folder_holds_what_was_promised(folder):
    assert {p.name for p in folder.iterdir()} == {
        "report.html", "figures", "equations.json", "equations.tex", "model.pt", "config.json",
    }  # fmt: skip
    assert {p.stem for p in (folder / "figures").iterdir()} >= {
        "data_and_fit", "extrapolation", "residuals", "term_U", "term_U_1", "candidates", "coefficients", "history",
    }  # fmt: skip
    assert r"\begin{aligned}" in (folder / "equations.tex").read_text()


def test_the_report_has_every_section_and_no_markup_of_the_user(folder):
    html = (folder / "report.html").read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == [
        "The question", "Data and fit", "Unknown terms: learned and recovered", "Extrapolation", "Residuals",
        "Candidate models", "Coefficients", "Training", "How to run it again",
    ]  # fmt: skip
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<math" in html
    assert "ab" * 32 in html


def test_the_recovered_numbers_are_in_the_json(run, folder):
    values = json.loads((folder / "equations.json").read_text())
    assert values["equations"] == list(run.discovery.equations)
    assert values["sse"] == pytest.approx(run.discovery.sse)
    assert values["scaled_sse"] == pytest.approx(scaled_sse(run))
    assert json.loads((folder / "config.json").read_text())["job"]["seed"] == 0


def test_loading_gives_the_trained_model_back(run, folder):
    y = torch.linspace(0.5, 9, 7, dtype=torch.float64)[:, None]
    assert torch.equal(ude.load(folder)(0.0, y), run.fit.model(0.0, y))


def test_loading_gives_the_recovered_model_back(run, folder):
    y = torch.linspace(0.5, 9, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        load(folder, recovered=True)(0.0, y), run.discovery.model(0.0, y), rtol=1e-12, atol=1e-12
    )


def test_a_folder_that_is_none_is_refused(tmp_path, folder):
    for place in (tmp_path, tmp_path / "none", folder / "report.html", "nul\0"):
        with pytest.raises(InputError):
            load(place)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": "other"}', b'{"format": "ude-run-1"}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_damaged_configuration_is_refused(copy, content):
    (copy / "config.json").write_bytes(content)
    with pytest.raises(InputError):
        load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["system"].update(equations=["__import__('os').system('touch hacked')"]),
        lambda c: c["system"].update(equations=["n.__class__"]),
        lambda c: c["system"].update(equations=["9**9**9**9"]),
        lambda c: c["system"].update(states=["n", "n"]),
        lambda c: c["system"].pop("terms"),
        lambda c: c["job"]["network"].update(width=10**12),
        lambda c: c["job"]["network"].update(width=8),
        lambda c: c["job"]["network"].update(activation="__import__"),
        lambda c: c["job"].update(network=None),
        lambda c: c["job"].update(positive=7),
    ],
    ids=range(10),
)
def test_a_hostile_configuration_is_refused_and_runs_nothing(copy, change, monkeypatch):
    monkeypatch.chdir(copy)
    configuration = json.loads((copy / "config.json").read_text())
    change(configuration)
    (copy / "config.json").write_text(json.dumps(configuration))
    with pytest.raises(InputError):
        load(copy)
    assert not (copy / "hacked").exists()


class Harmful:
    def __reduce__(self):
        return (open, ("hacked", "w"))


def test_weights_that_would_run_code_are_refused(copy, monkeypatch):
    monkeypatch.chdir(copy)
    torch.save({"format": "ude-run-1", "model": Harmful()}, copy / "model.pt")
    with pytest.raises(InputError, match="damaged"):
        load(copy)
    (copy / "model.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(InputError, match="damaged"):
        load(copy)
    assert not (copy / "hacked").exists()


def test_damaged_weights_are_refused(copy):
    whole = (copy / "model.pt").read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole[:-30] + bytes(30)):
        (copy / "model.pt").write_bytes(content)
        with pytest.raises(InputError):
            load(copy)
    with zipfile.ZipFile(copy / "model.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"nothing")
    with pytest.raises(InputError):
        load(copy)
    (copy / "model.pt").unlink()
    with pytest.raises(InputError, match=r"has no model\.pt"):
        load(copy)


def test_weights_of_another_model_are_refused(copy):
    content = torch.load(copy / "model.pt", weights_only=True)
    content["model"].popitem()
    torch.save(content, copy / "model.pt")
    with pytest.raises(InputError, match="damaged"):
        load(copy)


def test_a_full_disk_keeps_the_previous_report(run, tmp_path, monkeypatch):
    source = Source(name="data.csv")
    write_report(tmp_path / "run", run, source)
    before = (tmp_path / "run" / "config.json").stat().st_mtime_ns

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path / "run", run, source, overwrite=True)
    assert (tmp_path / "run" / "config.json").stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_figures_of_several_trajectories_have_names_of_their_own(run):
    data = run.fit.data
    groups = tuple(f"<{i}>" for i in range(8))
    many = Trajectories(ts=data.ts.repeat(8, 1), ys=data.ys.repeat(8, 1, 1), states=data.states, groups=groups)
    fit = replace(run.fit, data_sets=(many,), y0s=run.fit.y0s.repeat(1, 8, 1))
    found = replace(run.discovery, data=many, y0=run.discovery.y0.repeat(8, 1))
    page = compose(replace(run, fit=fit, discovery=found, paths=Paths.of(fit, found)), Source(name="x"))
    names = [picture.name for picture in page.pictures]
    assert len(set(names)) == len(names)
    assert any("first 6 of 8 trajectories" in warning for warning in page.warnings)


def test_facts_scale_the_error_by_the_largest_measurement(run):
    assert scaled_sse(run) == pytest.approx(run.discovery.sse / float(run.fit.data.ys.max()) ** 2)
    assert dict(facts(run))["Measured values"] == "13"


BAD_JOBS = {
    "no unknown term": ({"equations": ("n' = r*n",)}, "no unknown term"),
    "a parameter that is none": ({"parameters": {"q": 1.0}}, "'q' is not a parameter"),
    "a hidden state that is none": ({"hidden": {"q": 1.0}}, "'q' is not a hidden state"),
    "a positive name that is none": ({"positive": ("q",)}, "'q' is not a positive"),
    "a positive parameter below zero": ({"positive": ("r",), "parameters": {"r": -1.0}}, "must start above 0"),
    "a state without data": ({"equations": ("n' = r*n + ?(n)", "m' = -m")}, "have the state 'm'"),
    "an input without data": ({"equations": ("n' = r*n + ?(n) + u",), "inputs": ("u",)}, "have no input 'u'"),
    "a wrong equation": ({"equations": ("n = n",)}, "derivative"),
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_job_that_does_not_fit_is_refused_before_training(run, case):
    options, message = BAD_JOBS[case]
    with pytest.raises(InputError, match=re.escape(message)):
        run_job(Job(**({"equations": ("n' = r*n + ?(n)",)} | options)), run.fit.data)
