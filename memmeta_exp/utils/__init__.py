"""Small tools that any room may use: errors, atomic files, signals, locks."""
