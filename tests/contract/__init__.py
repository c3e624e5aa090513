"""Tests with schemathesis, which needs an environment of its own: make test-contract."""
