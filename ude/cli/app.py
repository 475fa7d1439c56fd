"""The command `ude`."""

from __future__ import annotations

import click

from ude._version import __version__
from ude.cli.data import data
from ude.cli.discover import discover
from ude.cli.download import download
from ude.cli.reproduce import reproduce

EPILOG = """\b
Example:
  ude data hudson_bay > hudson_bay.csv
  ude discover hudson_bay.csv --time year \\
      --equation "hare' = a*hare + ?(hare, lynx)" \\
      --equation "lynx' = -d*lynx + ?(hare, lynx)" --out run1
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ude")
def main() -> None:
    """Universal differential equations: write down the part you know, learn the rest, read it back.

    `ude discover` fits equations with unknown terms to a table of measurements and recovers the terms.
    `ude reproduce` runs a published result again and prints today's numbers beside the paper's.
    """


main.add_command(data)
main.add_command(discover)
main.add_command(download)
main.add_command(reproduce)
