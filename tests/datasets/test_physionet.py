"""The PhysioNet 2012 records: the grid, the scaling, the split, and what is said about a wrong file."""

import io
import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from ude._checks import InputError
from ude.datasets import PatientRecords, data_folder, physionet2012
from ude.datasets.physionet import VARIABLES

HEAD = "Time,Parameter,Value\n00:00,RecordID,{0}\n00:00,Age,54\n00:00,Gender,0\n00:00,Height,-1\n00:00,ICUType,4\n"
RECORDS = {
    132540: "00:00,Weight,80\n00:29,HR,60\n00:30,HR,70\n00:31,HR,100\n01:30,HR,90\n47:31,pH,7.25\n48:00,HR,50\n",
    132539: "00:00,Weight,-1\n00:07,Weight,71\n05:12,HR,150\n05:13,Urine,0\n",
    132541: "00:00,Weight,60\n",
}


def text(record, rows):
    return HEAD.format(record) + rows


def archive(path, records, folder="set-a"):
    with tarfile.open(path, "w:gz") as tar:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name, content in records.items():
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "physionet2012").mkdir()
    files = {f"{record}.txt": text(record, rows) for record, rows in RECORDS.items()}
    # What another system's archiver leaves beside the files.
    archive(tmp_path / "physionet2012/set-a.tar.gz", {"._132540.txt": b"\0\xff", "README": "set a", **files})
    return tmp_path


def readings(data, record):
    """Measured values of one record as {(variable, hour): value}."""
    i = data.ids.tolist().index(record)
    hours, columns = data.mask[i].nonzero(as_tuple=True)
    return {
        (data.names[c], h): data.values[i, h, c].item() for h, c in zip(hours.tolist(), columns.tolist(), strict=True)
    }


def test_readings_go_to_the_mean_of_the_nearest_hour(folder):
    data = physionet2012(folder, scaled=False)
    assert data.values.shape == data.mask.shape == (3, 49, 37)
    assert data.values.dtype == data.ts.dtype == torch.float64
    assert data.ids.tolist() == [132539, 132540, 132541]
    # Half an hour goes to the even hour: 00:30 to 0, 01:30 to 2.
    assert readings(data, 132540) == {
        ("Weight", 0): 80,
        ("HR", 0): 65,
        ("HR", 1): 100,
        ("HR", 2): 90,
        ("HR", 48): 50,
        ("pH", 48): 7.25,
    }
    # The -1 for an unknown weight is a reading; a measured 0 is one too.
    assert readings(data, 132539) == {("Weight", 0): 35, ("HR", 5): 150, ("Urine", 5): 0}
    assert (data.values[~data.mask] == 0).all()


def test_the_time_unit_is_48_hours(folder):
    ts = physionet2012(folder).ts
    assert torch.equal(ts, torch.arange(49, dtype=torch.float64) / 48)


def test_descriptors_are_no_variables(folder):
    names = physionet2012(folder).names
    assert len(names) == len(set(names)) == 37
    assert not {"Age", "Gender", "Height", "ICUType", "RecordID"} & set(names)


def test_values_are_scaled_by_the_extremes_of_what_was_measured(folder):
    data = physionet2012(folder)
    # HR from 50 to 150, divided by the maximum: (x - 50) / 150. One weight of 35, 80 and 60: (x - 35) / 80.
    assert readings(data, 132539) == pytest.approx({("Weight", 0): 0, ("HR", 5): 2 / 3, ("Urine", 5): 0}, abs=1e-15)
    assert readings(data, 132540)["HR", 1] == pytest.approx(1 / 3, abs=1e-15)
    assert readings(data, 132541) == pytest.approx({("Weight", 0): 25 / 80}, abs=1e-15)
    assert (data.values[~data.mask] == 0).all()
    assert data.low is not None
    assert data.high is not None
    raw = physionet2012(folder, scaled=False)
    back = torch.where(data.mask, data.values * data.high + data.low, 0.0)
    torch.testing.assert_close(back, raw.values, rtol=1e-15, atol=1e-13)
    assert data.high.gt(0).all()  # variables never measured, and Urine whose maximum is 0, are divided by 1


def test_the_extremes_may_be_those_of_the_training_patients_alone(folder):
    raw = physionet2012(folder, scaled=False)
    train, test = raw.take(torch.tensor([1])), raw.take(torch.tensor([2]))
    scaled = test.scaled(train)
    assert readings(scaled, 132541) == {("Weight", 0): (60 - 80) / 80}
    assert scaled.low is not None
    assert torch.equal(scaled.low, train.scaled().low)
    with pytest.raises(ValueError, match="among the 1 patients in `by`, got none of Urine"):
        raw.take(torch.tensor([0])).scaled(train)


def test_values_are_scaled_only_once(folder):
    data, raw = physionet2012(folder), physionet2012(folder, scaled=False)
    for twice in (data.scaled, lambda: data.scaled(raw), lambda: raw.scaled(data)):
        with pytest.raises(ValueError, match="scaled already"):
            twice()


def test_an_unpacked_folder_reads_the_same(folder, tmp_path):
    packed = physionet2012(folder)
    place = tmp_path / "physionet2012"
    (place / "set-a.tar.gz").unlink()
    (place / "set-a").mkdir()
    for record, rows in RECORDS.items():
        (place / f"set-a/{record}.txt").write_bytes(text(record, rows).replace("\n", "\r\n").encode())
    (place / "set-a/._132539.txt").write_bytes(b"\0\xff")
    assert torch.equal(physionet2012(folder).values, packed.values)


def test_several_sets_are_joined(folder):
    archive(folder / "physionet2012/set-b.tar.gz", {"142675.txt": text(142675, "03:00,HR,300\n")}, "set-b")
    data = physionet2012(folder, sets=("a", "b"), scaled=False)
    assert data.ids.tolist() == [132539, 132540, 132541, 142675]
    assert readings(data, 142675) == {("HR", 3): 300}
    archive(folder / "physionet2012/set-b.tar.gz", {"132540.txt": text(132540, "03:00,HR,300\n")}, "set-b")
    with pytest.raises(InputError, match="132540 occurs twice"):
        physionet2012(folder, sets=("a", "b"))


@pytest.mark.parametrize("sets", [(), ("d",), ("a", "a"), "set-a"])
def test_sets_are_named_by_a_letter(folder, sets):
    with pytest.raises(InputError, match="different sets among a, b, c"):
        physionet2012(folder, sets=sets)


BAD = {
    "an empty file": ("", "expected the first line 'Time,Parameter,Value', got an empty file"),
    "another table": ("RecordID,SAPS-I,SOFA\n1,2,3\n", "got 'RecordID,SAPS-I,SOFA'"),
    "a missing field": (text(1, "00:07,HR\n"), "'1.txt', line 7: expected time,parameter,value, got '00:07,HR'"),
    "a field too many": (text(1, "00:07,HR,70,bpm\n"), "line 7: expected time,parameter,value"),
    "a time beyond the stay": (text(1, "00:07,HR,70\n48:01,HR,70\n"), "line 8: expected a time 00:00 to 48:00, got"),
    "a time that is none": (text(1, "7 am,HR,70\n"), "got '7 am'"),
    "an unknown parameter": (text(1, "00:07,Ph,7\n"), "'Ph' is not a parameter. Did you mean 'pH'?"),
    "text for a number": (text(1, "00:07,HR,high\n"), "expected a finite number, got 'high'"),
    "no number": (text(1, "00:07,HR,\n"), "expected a finite number, got ''"),
    "not a number": (text(1, "00:07,HR,nan\n"), "expected a finite number, got 'nan'"),
    "infinity": (text(1, "00:07,HR,inf\n"), "expected a finite number, got 'inf'"),
    "a space": (text(1, "00:07, HR,70\n"), "line 7"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", "not plain text"),
}


@pytest.mark.parametrize("case", BAD)
def test_says_what_is_wrong_and_where(folder, case):
    content, message = BAD[case]
    archive(folder / "physionet2012/set-a.tar.gz", {"1.txt": content})
    with pytest.raises(InputError) as caught:
        physionet2012(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_without_series_is_a_patient_without_readings(folder):
    archive(folder / "physionet2012/set-a.tar.gz", {"1.txt": text(1, ""), "2.txt": text(2, "\n01:00,HR,70\n")})
    assert physionet2012(folder).mask.sum(dim=(1, 2)).tolist() == [0, 1]


def test_a_wrong_archive_is_refused(folder):
    path = folder / "physionet2012/set-a.tar.gz"
    whole = path.read_bytes()
    changed = bytes([whole[-8] ^ 1])  # one bit of the checksum
    for content in (whole[:-9], whole[:-200], b"", b"not found", whole[:-8] + changed + whole[-7:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"'set-a.tar.gz' is not a whole archive .* Download it again"):
            physionet2012(folder)
    archive(path, {})
    with pytest.raises(InputError, match="There is no record"):
        physionet2012(folder)
    archive(path, {"patient.txt": text(1, "")})
    with pytest.raises(InputError, match=r"like '132539.txt', got 'patient.txt'"):
        physionet2012(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"neither 'set-a\.tar\.gz' nor a folder 'set-a'"):
        physionet2012(folder)


def numbered(patients):
    values = torch.arange(patients, dtype=torch.float64)[:, None, None]
    ids = torch.arange(patients) + 100
    return PatientRecords(ts=torch.zeros(1), values=values, mask=values >= 0, names=("HR",), ids=ids)


def test_a_split_has_every_patient_once_and_their_own_values():
    data = numbered(50)
    train, test = data.split(0.8, generator=torch.Generator().manual_seed(0))
    assert (len(train), len(test)) == (40, 10)
    assert sorted([*train.ids.tolist(), *test.ids.tolist()]) == data.ids.tolist()
    for part in (train, test):
        assert torch.equal(part.values.flatten() + 100, part.ids.double())
    assert train.ids.tolist() != sorted(train.ids.tolist())


def test_a_split_is_repeated_by_the_same_seed_only():
    data = numbered(50)
    first, again, other = (data.split(30, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert [len(part) for part in first] == [30, 5]
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert first[0].ids.tolist() != other[0].ids.tolist()


@pytest.mark.parametrize("shares", [(0,), (50,), (51,), (-1,), (45, 6), (30, 0), (0.001,)])
def test_a_split_needs_patients_for_both_sets(shares):
    with pytest.raises(ValueError, match="at least one patient in each set and at most 50 together"):
        numbered(50).split(*shares, generator=torch.Generator())


@pytest.mark.parametrize("share", [1.0, 1.5, 0.0, float("nan")])
def test_a_fraction_lies_between_0_and_1(share):
    with pytest.raises(ValueError, match="`train` must be a number of patients"):
        numbered(50).split(share, generator=torch.Generator())


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"\(patients, hours, variables\) = \(3, 1, 1\)"):
        replace(numbered(3), values=torch.zeros(3, 2, 1))
    with pytest.raises(ValueError, match=r"of torch\.float64"):
        replace(numbered(3), mask=torch.ones(3, 1, 1, dtype=torch.float64))


@pytest.mark.skipif(not os.environ.get("UDE_DATA"), reason="needs the folder of real data sets in UDE_DATA")
def test_set_a_equals_the_same_records_read_by_another_program():
    data, raw = physionet2012(), physionet2012(scaled=False)
    assert data.values.shape == (4000, 49, 37)
    # Figures found before by an independent program, to the digits given there.
    observed = data.values[data.mask]
    assert data.mask.double().mean().item() == pytest.approx(0.1980, abs=5e-5)
    assert observed.mean().item() == pytest.approx(0.339, abs=5e-4)
    assert observed.std().item() == pytest.approx(0.285, abs=5e-4)

    events = np.load(data_folder() / "physionet2012/set_a_events.npz")
    assert torch.equal(raw.ids, torch.from_numpy(events["record_id"]).long())
    record = np.repeat(np.arange(4000), np.diff(events["ptr"]))
    column = np.array([VARIABLES.index(name) for name in events["param_names"]])[events["param"]]
    total, count = np.zeros((4000, 49, 37)), np.zeros((4000, 49, 37))
    # The first Weight of each record is kept apart there, as a descriptor at 00:00.
    total[:, 0, VARIABLES.index("Weight")] = events["static"][:, 4]
    count[:, 0, VARIABLES.index("Weight")] = 1
    where = (record, np.rint(events["minutes"] / 60).astype(int), column)
    np.add.at(total, where, events["value"])
    np.add.at(count, where, 1)
    assert np.array_equal(raw.mask.numpy(), count > 0)
    np.testing.assert_allclose(raw.values.numpy(), total / np.maximum(count, 1), rtol=1e-14, atol=0)
