"""Runs beside the SuperLink; sees texts and averages, never an interaction."""
