"""Descriptions of the URL modules, and the OpenAPI document made from them."""
