"""Descriptions of URL modules, and the OpenAPI document made from them."""
