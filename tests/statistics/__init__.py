"""Tests of govi_server/statistics."""
