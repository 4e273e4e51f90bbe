"""Audits: whether a run can be believed."""
