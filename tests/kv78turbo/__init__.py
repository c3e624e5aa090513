"""Tests of govi_server/kv78turbo."""
