"""Reads what runs left in outputs/ and makes tables and figures of it; never trains."""
