"""The commands of the console script, one module each. `main(arguments)` of each returns the exit code."""
