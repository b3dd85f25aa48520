"""Sweeps: from a sweep file to a folder of runs and a table of results, on one machine or a Slurm cluster.

sweep_file.py  reads and checks a W&B sweep file       sweep_folder.py   SWEEP_DIR and the status of each job
grid.py        the jobs: all combinations, composed    results_table.py  results.csv and results.parquet
job.py         runs one job                            launch.py         runs many through Hydra's launchers
devices.py     assigns GPUs and threads to jobs        naming.py         labels of jobs
workers.py     starts and stops joblib's processes     slurm.py          cancellation and preemption on Slurm
"""
