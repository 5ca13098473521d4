//! Argo CD's sync windows: whether a project lets an application be synced now.
