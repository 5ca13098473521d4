//! Values at paths of a document: found, set, put back.
