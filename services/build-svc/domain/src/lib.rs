//! What build-svc decides: pure functions from state to decision, without clock or I/O.
