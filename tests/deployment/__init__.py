"""Tests of the files in etc/ with the programs that read them."""
