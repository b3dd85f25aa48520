"""Peak memory before a run: prediction on meta tensors, and budgets."""
