"""Runs beside a SuperNode; the only code that touches interactions."""
