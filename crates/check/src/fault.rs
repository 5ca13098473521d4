//! What is wrong with something that a person wrote.

use std::time::Duration;

use slipway_model::duration;

/// One place that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Fault {
    /// Such as `services.shop.environments[1].policy`, or relative to the thing that is checked, such as `http.path`.
    pub path: String,
    pub message: String,
}

/// Collects every fault, so that a person can fix all of them at once.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault {
            path: path.into(),
            message: message.into(),
        });
    }

    /// Adds a fault unless `holds`.
    pub fn require(&mut self, holds: bool, path: impl Into<String>, message: &str) {
        if !holds {
            self.add(path, message);
        }
    }

    /// Adds a fault where a value was found wrong.
    pub fn accept<T>(&mut self, path: impl Into<String>, checked: Result<T, String>) {
        if let Err(message) = checked {
            self.add(path, message);
        }
    }

    /// Adds a fault unless a duration is positive and at most `max`.
    pub fn period(&mut self, path: String, value: Duration, max: Duration) {
        if value.is_zero() || value > max {
            self.add(
                path,
                format!("must be more than 0s and at most {}", duration::print(max)),
            );
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}
