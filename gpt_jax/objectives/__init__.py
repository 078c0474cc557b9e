"""Objectives: what training minimises, as summed losses with token counts."""
