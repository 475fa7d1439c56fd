"""One step of each solver; never a loop."""
