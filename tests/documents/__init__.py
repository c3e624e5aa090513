"""Tests of govi_server/documents."""
