"""Tests of govi_server.sharing."""
