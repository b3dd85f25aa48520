"""General tools without dependencies on the rest of the package: errors, atomic files, signals, locks."""
