"""The feed proxy: one subscription to the live feed for all servers of a site."""
