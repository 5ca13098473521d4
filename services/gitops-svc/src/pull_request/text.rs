//! Words of a pull request.
