"""HTTP as values: no I/O, no clock, no Twisted."""
