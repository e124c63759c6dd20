//! Strict reading of values.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
};

use crate::RecordError;

/// Characters of an offending value that an error repeats: a guest may write thousands.
const SHOWN: usize = 40;

/// A look-up with typed answers. Absent and empty are the same.
pub(super) struct Reader<F>(pub(super) F);

impl<V: AsRef<[u8]>, F: FnMut(&str) -> Option<V>> Reader<F> {
    /// A value that is text.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, RecordError> {
        match (self.0)(key) {
            Some(value) if !value.as_ref().is_empty() => match core::str::from_utf8(value.as_ref()) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(unexpected(key, &String::from_utf8_lossy(value.as_ref()), "text")),
            },
            _ => Ok(None),
        }
    }

    /// A decimal number.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<u64>, RecordError> {
        match (self.0)(key) {
            Some(value) if !value.as_ref().is_empty() => decimal(key, value.as_ref()).map(Some),
            _ => Ok(None),
        }
    }

    /// A decimal number of 32 bits.
    pub(super) fn number32(&mut self, key: &str) -> Result<Option<u32>, RecordError> {
        self.within(key, 0, u32::MAX)
    }

    /// A decimal number from `min` to `max`.
    pub(super) fn within(&mut self, key: &str, min: u32, max: u32) -> Result<Option<u32>, RecordError> {
        let Some(value) = self.number(key)? else { return Ok(None) };
        match u32::try_from(value) {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(out_of_range(key, value, min.into(), max.into())),
        }
    }

    /// A decimal number, brought into `min` to `max`: what a peer says beyond it is of no use to us and no offence.
    pub(super) fn clamped(&mut self, key: &str, min: u32, max: u32) -> Result<Option<u32>, RecordError> {
        let number = self.number(key)?;
        Ok(number.map(|value| u32::try_from(value).unwrap_or(u32::MAX).clamp(min, max)))
    }

    /// `0` or `1`; absent is no.
    pub(super) fn flag(&mut self, key: &str) -> Result<bool, RecordError> {
        Ok(self.maybe_flag(key)?.unwrap_or(false))
    }

    /// `0` or `1`, or absent.
    pub(super) fn maybe_flag(&mut self, key: &str) -> Result<Option<bool>, RecordError> {
        match self.number(key)? {
            None => Ok(None),
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            Some(other) => Err(unexpected(key, &other.to_string(), "0 or 1")),
        }
    }
}

/// `value`, or the error that `key` is missing.
pub(super) fn required<T>(key: &str, value: Option<T>) -> Result<T, RecordError> {
    value.ok_or_else(|| RecordError::Missing { key: key.to_owned() })
}

pub(super) fn unexpected(key: &str, value: &str, expected: &'static str) -> RecordError {
    RecordError::Unexpected { key: key.to_owned(), value: shown(value), expected }
}

pub(super) fn out_of_range(key: &str, value: u64, min: u64, max: u64) -> RecordError {
    RecordError::OutOfRange { key: key.to_owned(), value, min, max }
}

fn decimal(key: &str, value: &[u8]) -> Result<u64, RecordError> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = core::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| RecordError::NotANumber {
        key: key.to_owned(),
        value: shown(&String::from_utf8_lossy(value)),
    })
}

fn shown(value: &str) -> String {
    value.chars().take(SHOWN).collect()
}
