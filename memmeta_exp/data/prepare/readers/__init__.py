"""Readers of the published file formats of each dataset; docs/datasets.md has their sources."""
