"""`python -m ude` is the command `ude`."""

from ude.cli import main

if __name__ == "__main__":
    main(prog_name="python -m ude")
