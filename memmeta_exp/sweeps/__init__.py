"""Studies: from a sweep file to a folder of runs and a table, on whatever machines there are.

file.py     a W&B sweep file, read and checked            folder.py   SWEEP_DIR: what is there, and how each job stands
plan.py     its jobs: every combination, composed         table.py    results.csv, results.parquet
execute.py  one job, here or in a process of its own      launch.py   many, through Hydra's launchers
devices.py  GPUs and threads shared out among them        naming.py   what jobs are called
workers.py  joblib's processes, and how they are stopped
"""
