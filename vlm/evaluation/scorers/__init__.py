"""A module a benchmark, each with its SCORER; what several share lies beside them, in modules named after what they do."""
