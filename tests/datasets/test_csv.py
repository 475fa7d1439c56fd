"""Reading measurements: what is accepted, and the sentence for everything that is not."""

import contextlib
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ude import systems
from ude._checks import InputError
from ude.datasets import covid19, data_folder, hudson_bay_long, read_csv

TABLE = "t,x,y\n0,1,10\n1,2,20\n2,3,30\n"


@pytest.fixture
def csv(tmp_path):
    def write(content, **options):
        path = tmp_path / "data.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_csv(path, **{"time": "t", **options})

    return write


def test_reads_names_times_and_values(csv):
    data = csv(TABLE)
    assert (data.states, data.time, data.groups) == (("x", "y"), "t", ("1",))
    assert data.ts.tolist() == [[0, 1, 2]]
    assert data.ys.tolist() == [[[1, 10], [2, 20], [3, 30]]]


@pytest.mark.parametrize(
    "text",
    [
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace(",", "|"),
        TABLE.replace(",", ", "),
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r"),
        TABLE.rstrip("\n"),
        "# a comment, with, many, commas\n\n" + TABLE,
        TABLE.replace("1,2,20\n", "1,2,20\n# outlier removed\n\n"),
        '"t","x","y"\n0,"1",10\n1,2,20\n"2",3,3e1\n',
        "T,X,Y\n0,1,10\n1,2,20\n2,3,30\n",
        b"\xef\xbb\xbf" + TABLE.encode(),
        TABLE.encode("utf-16"),
        "t;x;y\n0;1,0;10\n1;2;20,0\n2;3;30\n",
    ],
)
def test_reads_the_same_table_however_it_was_written(csv, text):
    decimal = "," if isinstance(text, str) and "1,0" in text else "."
    data = csv(text, states=("x", "y"), decimal=decimal)
    assert data.states == ("x", "y")
    assert data.ys.tolist() == [[[1, 10], [2, 20], [3, 30]]]


def test_an_empty_cell_was_not_measured(csv):
    data = csv("t,x,y\n0,1,\n1,NA,2\n2,nan,3")
    assert data.ys[0].isnan().tolist() == [[False, True], [True, False], [True, False]]


def test_inputs_and_groups_are_kept_apart(csv):
    data = csv("t,run,x,dose\n0,a,1,5\n0,b,2,6\n1,a,3,7\n1,b,4,8\n2,b,5,9", group="run", inputs=("dose",))
    assert data.groups == ("a", "b")
    assert (data.states, data.input_names) == (("x",), ("dose",))
    assert data.ts.tolist() == [[0, 1, 1], [0, 1, 2]]
    assert data.inputs is not None
    assert data.inputs[..., 0].tolist() == [[5, 7, 7], [6, 8, 9]]
    assert data.ys[1, :, 0].tolist() == [2, 4, 5]
    assert data.ys[0, 2, 0].isnan()


def test_a_hidden_state_has_no_measured_value(csv):
    data = csv(TABLE, states=("x",), hidden=("z",))
    assert data.states == ("x", "z")
    assert data.ys[..., 1].isnan().all()


def test_dates_become_days(csv):
    data = csv("day,x\n2020-02-27,1\n2020-02-29,2\n2020-03-01T12:00,3", time="day")
    assert data.ts.tolist() == [[0, 2, 3.5]]
    assert data.time == "day (days since 2020-02-27)"


def test_sorts_rows_on_request(csv):
    data = csv("t,x,y\n2,3,30\n0,1,10\n1,2,20", sort=True)
    assert data.ys.tolist() == [[[1, 10], [2, 20], [3, 30]]]


def test_reads_the_embedded_table_exactly(tmp_path):
    path = tmp_path / "hudson_bay.csv"
    path.write_text(systems.hudson_bay_csv())
    data = read_csv(path, time="year")
    assert data.states == ("hare", "lynx")
    assert torch.equal(data.ys, systems.hudson_bay().ys)
    assert torch.equal(data.ts, systems.hudson_bay().ts)


BAD = {
    "no such column": (TABLE, {"states": ("z",)}, "no column 'z'. Its columns are 't', 'x', 'y'"),
    "a misspelt column": ("t,hare\n0,1\n1,2", {"states": ("hair",)}, "Did you mean 'hare'?"),
    "no separator": ("a b c\n1 2 3", {}, "no comma, semicolon, tab or | separates"),
    "an empty file": ("", {}, "is empty"),
    "only comments": ("# nothing\n\n", {}, "is empty"),
    "no rows": ("t,x\n", {}, "no rows"),
    "one row": ("t,x\n0,1", {}, "only one row"),
    "no state": ("t\n0\n1", {}, "no column for a state"),
    "text in a number column": ("t,x\n0,1\n1,high", {}, "line 3, column 'x': expected a number, got 'high'"),
    "text in the time": ("t,x\nzero,1\n1,1", {}, "line 2, column 't': expected a number"),
    "a decimal comma": ("t;x\n0;1,5\n1;2", {}, "--decimal ,"),
    "a thousands separator": ('t,x\n0,"1,234.5"\n1,2', {}, "expected a number, got '1,234.5'"),
    "infinity": ("t,x\n0,inf\n1,2", {}, "expected a number, got 'inf'"),
    "overflow": ("t,x\n0,1e999\n1,2", {}, "too large"),
    "an underscore": ("t,x\n0,1_0\n1,2", {}, "expected a number"),
    "a missing time": ("t,x\n,1\n1,2", {}, "line 2, column 't': no value"),
    "NaN as time": ("t,x\nnan,1\n1,2", {}, "line 2, column 't': no value"),
    "a missing input": ("t,x,u\n0,1,\n1,2,3", {"inputs": ("u",)}, "line 2, column 'u': no value"),
    "a repeated time": ("# c\nt,x\n0,1\n0,2\n1,2", {}, "lines 3 and 4: the time 0 is repeated"),
    "a decreasing time": ("t,x\n1,1\n0,2", {}, "lines 2 and 3: the time decreases from 1 to 0"),
    "a repeated time in a group": (
        "t,g,x\n0,a,1\n0,b,1\n1,b,1\n0,a,2",
        {"group": "g", "states": ("x",)},
        "lines 2 and 5: the time 0 of group 'a' is repeated",
    ),
    "an empty group": ("t,g,x\n0,,1\n1,a,2", {"group": "g"}, "line 2: the group is empty"),
    "one row in a group": ("t,g,x\n0,a,1\n1,a,1\n0,b,2", {"group": "g"}, "only one row of group 'b'"),
    "a short row": ("t,x,y\n0,1,2\n1,2", {}, "line 3: expected 3 fields as in the first row, got 2"),
    "a long row": ("t,x\n0,1\n1,2,3", {}, "line 3: expected 2 fields as in the first row, got 3"),
    "a duplicate name": ("t,x,x\n0,1,2\n1,2,3", {}, "2 columns named 'x'"),
    "names that differ in case": ("t,Hare,HARE\n0,1,2\n1,2,3", {"states": ("hare",)}, "2 columns named 'hare'"),
    "two roles for a column": (TABLE, {"inputs": ("x",), "states": ("x",)}, "more than once"),
    "an open quote": ('t,x\n0,"1\n1,2\n2,3', {}, "open quote"),
    "Latin 1": ("t,temp\u00e9rature\n0,1\n1,2".encode("latin-1"), {}, "not UTF-8 text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", {}, "not UTF-8 text"),
    "a state without values": ("t,x,y\n0,1,\n1,2,", {}, "column 'y' has no measured value"),
    "a date among numbers": ("t,x\n0,1\n2020-01-01,2", {}, "expected a number, got '2020-01-01'"),
    "a number among dates": ("t,x\n2020-01-01,1\n5,2", {}, "expected a date like 2020-01-31"),
    "an impossible date": ("t,x\n2020-13-45,1\n2020-01-02,2", {}, "expected a date"),
    "a wrong decimal mark": (TABLE, {"decimal": ";"}, "decimal mark must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_says_what_is_wrong_and_where(csv, case):
    content, options, message = BAD[case]
    with pytest.raises(InputError) as caught:
        csv(content, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "hudson_bay.csv").write_text(TABLE)
    with pytest.raises(InputError, match=r"Did you mean 'hudson_bay\.csv'\?"):
        read_csv(tmp_path / "hudson-bay.csv", time="t")


@pytest.mark.parametrize("name", ["", "no/such/folder.csv", "a" * 5000, "nul\0byte"])
def test_an_impossible_path_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError):
        read_csv(f"{tmp_path}/{name}", time="t")


def test_a_long_table_is_read(csv):
    data = csv("t,x\n" + "\n".join(f"{i},{i / 2}" for i in range(20_000)))
    assert data.ys.shape == (1, 20_000, 1)
    assert data.ys[0, -1, 0] == 19_999 / 2


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(), st.text().map(lambda s: s.encode(errors="replace"))))
def test_arbitrary_bytes_never_raise_anything_else(csv, content):
    with contextlib.suppress(InputError):
        csv(content)


CELLS = st.sampled_from(
    ["0", "1", "2.5", "-1e3", "", "NA", "nan", "inf", "x", '"', '"a,b"', "#", ";", " ", "2020-01-01"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), max_size=6).map("\n".join),
    st.sampled_from(["t,x,y\n", "t,x\n", "t;g;x\n", "x,t,x\n", ""]),
    st.sampled_from([None, "g", "x"]),
    st.booleans(),
)
def test_almost_tables_never_raise_anything_else(csv, body, header, group, sort):
    with contextlib.suppress(InputError):
        data = csv(header + body, group=group, sort=sort)
        assert (data.ts.diff(dim=1) >= 0).all()
        assert not data.ys.isinf().any()


def test_the_data_folder_must_exist(tmp_path, monkeypatch):
    monkeypatch.delenv("UDE_DATA", raising=False)
    with pytest.raises(InputError, match="--data DIR"):
        data_folder()
    with pytest.raises(InputError, match="does not exist"):
        data_folder(tmp_path / "none")
    monkeypatch.setenv("UDE_DATA", str(tmp_path))
    assert data_folder() == tmp_path


def test_named_sets_are_read_from_the_folder(tmp_path):
    for name in ("hudson_bay", "covid19"):
        (tmp_path / name).mkdir()
    (tmp_path / "hudson_bay/hare_lynx_1845_1935.csv").write_text("DATE,HARE,LYNX\n1845,19.58,30.09\n1846,19.60,45.15\n")
    (tmp_path / "covid19/selected_regions_2020.csv").write_text(
        "region,date,confirmed,deaths,recovered\nItaly,2020-01-22,0,0,0\nItaly,2020-01-23,1,0,0\n"
        "Spain,2020-01-22,3,0,0\nSpain,2020-01-23,4,0,0\n"
    )
    assert hudson_bay_long(tmp_path).states == ("hare", "lynx")
    data = covid19("Spain", tmp_path)
    assert data.ys[0, :, 0].tolist() == [3, 4]
    with pytest.raises(InputError, match=r"no region 'Itlay'. Did you mean 'Italy'\?"):
        covid19("Itlay", tmp_path)


@pytest.mark.skipif(not os.environ.get("UDE_DATA"), reason="needs the folder of real data sets in UDE_DATA")
def test_real_files_are_read():
    data = covid19("Italy")
    assert data.ys.shape == (1, 345, 3)
    assert hudson_bay_long().ys.shape == (1, 91, 2)
    short = read_csv(data_folder() / "hudson_bay/lynx_hare_1900_1920.csv", time="year", states=("hare", "lynx"))
    assert torch.equal(short.ys, systems.hudson_bay().ys)
