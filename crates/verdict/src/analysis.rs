//! Bake: what measurements of a metric say about a version.
