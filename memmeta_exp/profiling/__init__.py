"""What a run is judged by: peak memory, convergence and time."""
