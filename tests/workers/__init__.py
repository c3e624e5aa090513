"""Tests of govi_server.workers."""
