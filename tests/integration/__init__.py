"""Tests over real sockets, as pytest-twisted functions."""
