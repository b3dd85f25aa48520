"""Makes tables, figures and pages from the folders of finished runs. Trains nothing."""
