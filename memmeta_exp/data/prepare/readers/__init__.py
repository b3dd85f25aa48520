"""The published file formats of each dataset, read as `SplitImages`; docs/datasets.md has their sources."""
