"""Tests of govi_server/runtime."""
