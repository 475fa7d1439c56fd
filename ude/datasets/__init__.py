"""Measurements from files."""

from ude.datasets.csv import MISSING, column_names, read_csv
from ude.datasets.folder import covid19, data_folder, hudson_bay_long
from ude.datasets.idx import Digits, mnist, read_idx
from ude.datasets.physionet import PatientRecords, physionet2012
from ude.datasets.remote import REMOTE_FILES, DownloadError, RemoteFile, download

__all__ = [
    "MISSING",
    "REMOTE_FILES",
    "Digits",
    "DownloadError",
    "PatientRecords",
    "RemoteFile",
    "column_names",
    "covid19",
    "data_folder",
    "download",
    "hudson_bay_long",
    "mnist",
    "physionet2012",
    "read_csv",
    "read_idx",
]
