"""Postprocessing that tasks share: scores, spans, entities, tables."""
