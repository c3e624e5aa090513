"""The pages of the whole program in a browser: make test-browser."""
