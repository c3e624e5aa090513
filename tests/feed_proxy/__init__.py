"""Tests of govi_server.feed_proxy."""
