"""Numerical routines that several packages need, in numpy alone."""
