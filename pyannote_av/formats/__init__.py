"""File formats of references and outputs. Files are written atomically."""
