"""Tests of govi_server/operations."""
