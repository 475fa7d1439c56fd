"""Measurements from files."""

from ude.datasets.csv import MISSING, column_names, read_csv
from ude.datasets.folder import covid19, data_folder, hudson_bay_long

__all__ = ["MISSING", "column_names", "covid19", "data_folder", "hudson_bay_long", "read_csv"]
