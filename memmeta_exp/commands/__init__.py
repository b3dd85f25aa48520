"""The commands of the console script, one module each; `main(arguments)` returns the exit code."""
