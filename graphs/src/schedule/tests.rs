//! Orders against outside references.
