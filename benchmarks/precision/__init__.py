"""Work-precision diagrams: how much work a method needs for an error."""
