//! Page sizes of lists, after AIP-158.

use crate::ApiError;

/// When the caller does not ask for a size.
const DEFAULT: u32 = 50;
/// Larger sizes are reduced to this, so that one response stays far below the message limit.
const MAX: u32 = 500;

/// The number of entries of a page: 50 when not set, at most 500.
///
/// # Errors
/// A negative size is refused, naming `page_size`.
pub fn size(page_size: i32) -> Result<u32, ApiError> {
    match u32::try_from(page_size) {
        Ok(0) => Ok(DEFAULT),
        Ok(size) => Ok(size.min(MAX)),
        Err(_) => Err(ApiError::invalid("page_size", "must not be negative; 0 means 50")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (given, size) in [(0, 50), (1, 1), (500, 500), (501, 500), (i32::MAX, 500)] {
            assert_eq!(super::size(given), Ok(size));
        }
        assert!(super::size(-1).is_err());
    }
}
