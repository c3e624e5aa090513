"""Tests of govi_server/modules."""
