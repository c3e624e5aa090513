"""Tests of govi_server/sockets."""
