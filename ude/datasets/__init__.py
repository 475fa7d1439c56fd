"""Measurements from files."""

from ude.datasets.csv import MISSING, read_csv
from ude.datasets.folder import covid19, data_folder, hudson_bay_long

__all__ = ["MISSING", "covid19", "data_folder", "hudson_bay_long", "read_csv"]
