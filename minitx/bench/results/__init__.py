"""Results of benchmarks: rows, files, text, pictures, and the comparison of two."""
