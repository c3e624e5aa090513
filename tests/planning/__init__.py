"""Tests of planning from GTFS."""
