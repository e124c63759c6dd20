//! The suite that every [`Storage`](super::Storage) passes.
