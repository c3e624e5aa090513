"""Tests of govi_server/http."""
