//! One token bucket, as two numbers that several threads change without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// So many nanoseconds are a second.
const SECOND: u64 = 1_000_000_000;

/// A bucket that fills with `rate` tokens a second. What is in it is not counted; instead `paid` says until when the past is paid for:
/// a bucket whose `paid` is now is full, one whose `paid` is a burst ahead is empty, and one that is further ahead is in debt.
///
/// Times are nanoseconds of one clock, from its arbitrary start.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Tokens a second; 0: there is no limit.
    rate: AtomicU64,
    paid: AtomicU64,
}

impl Bucket {
    /// Tokens a second; 0: there is no limit.
    pub(super) fn rate(&self) -> u64 {
        self.rate.load(Relaxed)
    }

    /// Nanoseconds that `tokens` take to flow in; 0 where there is no limit.
    pub(super) fn price(&self, tokens: u64) -> u64 {
        match self.rate() {
            0 => 0,
            rate => tokens.saturating_mul(SECOND).saturating_add(rate / 2) / rate,
        }
    }

    /// When the bucket is out of debt, if it holds what flows in during `burst`; 0 where there is no limit.
    pub(super) fn opens(&self, burst: u64) -> u64 {
        if self.rate() == 0 { 0 } else { self.paid.load(Relaxed).saturating_sub(burst) }
    }

    /// True when it would not be in debt without `tokens`, and they flow in within an eighth of `burst`.
    pub(super) fn affords(&self, tokens: u64, burst: u64, now: u64) -> bool {
        let price = self.price(tokens);
        let paid = self.paid.load(Relaxed).max(now).saturating_add(price);
        price == 0 || price <= burst / 8 && paid.saturating_sub(burst) <= now
    }

    /// Takes `tokens` out, also those that are not there yet. Returns their [`price`](Self::price).
    pub(super) fn take(&self, tokens: u64, now: u64) -> u64 {
        let price = self.price(tokens);
        if price > 0 {
            self.update(|paid| paid.max(now).saturating_add(price));
        }
        price
    }

    /// Puts `tokens` back. Returns their [`price`](Self::price).
    pub(super) fn refund(&self, tokens: u64) -> u64 {
        let price = self.price(tokens);
        if price > 0 {
            self.update(|paid| paid.saturating_sub(price));
        }
        price
    }

    /// Fills at another rate from now on. What was taken in advance stays owed, in tokens.
    pub(super) fn set_rate(&self, rate: u64, now: u64) {
        let old = self.rate.swap(rate, Relaxed);
        self.update(|paid| {
            let ahead = u128::from(paid.saturating_sub(now)) * u128::from(old);
            let ahead = ahead.checked_div(u128::from(rate)).unwrap_or(0);
            now.saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX))
        });
    }

    fn update(&self, change: impl Fn(u64) -> u64) {
        // Never refused: the change is always made.
        _ = self.paid.fetch_update(Relaxed, Relaxed, |paid| Some(change(paid)));
    }
}
