"""How URL modules describe themselves, and the OpenAPI document made from that."""
