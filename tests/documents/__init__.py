"""Tests of govi_server/openapi."""
