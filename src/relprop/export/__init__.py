"""Explanations as programs: recorded once, then run without relprop."""
