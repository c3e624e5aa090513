"""Tests of govi_server/kv55."""
