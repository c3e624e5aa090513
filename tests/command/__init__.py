"""Tests of govi_server/command."""
