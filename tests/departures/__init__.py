"""Tests of govi_server/departures."""
