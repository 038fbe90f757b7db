"""Tests of what runs beside the SuperLink."""
