"""The pages in a browser, served by the whole program: make test-browser."""
