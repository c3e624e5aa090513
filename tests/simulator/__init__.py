"""Tests of govi_server/simulator."""
