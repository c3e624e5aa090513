"""Faults to plant into the program: one patch each, of which ``make simulate-check`` must find nearly all."""
