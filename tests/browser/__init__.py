"""Tests of the pages of the whole program in a browser: make test-browser."""
