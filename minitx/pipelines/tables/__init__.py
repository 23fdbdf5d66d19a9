"""Questions about tables: the shape of their task, and the models that select cells."""
