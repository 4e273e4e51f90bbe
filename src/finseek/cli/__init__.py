"""The command line: a thin face on functions that people can import. Only this package knows of a terminal."""
